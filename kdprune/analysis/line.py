"""What the networks on the line between two others do, in the run's precision.

Shapes: A points of the line, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from kdprune.analysis.interpolation import interpolated, with_fresh_statistics
from kdprune.data.counter import key
from kdprune.data.reader import Batch, Reader
from kdprune.data.view_settings import ViewSettings
from kdprune.models.spec import BuiltModel
from kdprune.passes.evaluation import evaluate, student_logits
from kdprune.passes.predict import predict
from kdprune.pipeline.evaluate import held_out
from kdprune.pipeline.session import Session
from kdprune.pipeline.student import place
from kdprune.selectors.common.order import first_by_hash

Ends = tuple[BuiltModel, BuiltModel]
Statistics = Literal["measured", "interpolated"]
FOR_STATISTICS, AT_ONCE = 2048, 512  # samples on which BatchNorm's statistics are measured, and of a batch of them


@dataclass(frozen=True)
class Line:
    """Held-out figures along a line.

    Attributes:
        alphas_A: ascending from 0, the first end, to 1, the second.
        errors_A: shares of wrong predictions.
        losses_A: cross-entropies, nats.
        samples: held-out.
    """

    alphas_A: np.ndarray
    errors_A: np.ndarray
    losses_A: np.ndarray
    samples: int

    @property
    def error(self) -> float:
        """The mean of the two ends' errors."""
        return float(self.errors_A[[0, -1]].mean())

    @property
    def highest(self) -> float:
        return float(self.errors_A.max())

    @property
    def barrier(self) -> float:
        """The largest error along the line less the mean of the two ends, 0 or more (Frankle et al. 2020, section 2:
        "error barrier height", or "linear interpolation instability")."""
        return self.highest - self.error


def check_points(points: int) -> np.ndarray:
    """So many points from 0 to 1, both among them.

    Raises:
        ValueError: fewer than three.
    """
    if points < 3:
        raise ValueError(f"--points: {points} given, allowed are 3 and more: both ends, and what lies between them")
    return np.linspace(0, 1, points)


def held_out_line(
    ends: Ends,
    alphas_A: np.ndarray,
    kept: np.ndarray,
    views: ViewSettings,
    session: Session,
    statistics: Statistics = "measured",
) -> Line:
    """Error and loss of each network on a line, on held-out data.

    Args:
        ends: of one kind; the first one is used up.
        kept: training samples, of which up to 2,048 measure BatchNorm's statistics.
        views: what of them is seen then.
    """
    built, data, accelerator = ends[0], session.data, session.accelerator
    results = [
        evaluate(logits, held_out(built, session), data.num_classes, accelerator)
        for logits in networks(ends, alphas_A, kept, views, session, statistics)
    ]
    top1s, losses = ([result[name] for result in results] for name in ("top1", "loss"))
    return Line(alphas_A, 1 - np.array(top1s), np.array(losses), results[0]["samples"])


def wrong_on_line(
    ends: Ends, alphas_A: np.ndarray, kept: np.ndarray, views: ViewSettings, session: Session
) -> np.ndarray:
    """Which kept samples each network on a line is wrong about, bool A×N, on plain images.

    BatchNorm's statistics are measured anew at each point, the ends among them, on views.
    """
    split, built = session.data.train, ends[0]
    wrong_AN = np.zeros((len(alphas_A), len(split)), dtype=bool)
    for logits, wrong_N in zip(networks(ends, alphas_A, kept, views, session), wrong_AN, strict=True):

        def wrong(batch: Batch, logits: Callable[[Tensor], Tensor] = logits) -> Tensor:
            return logits(batch.images).argmax(1) != batch.labels

        wrong_N[kept] = predict(wrong, split, kept, built.spec, session.place).cpu().numpy()
    return wrong_AN


def networks(
    ends: Ends,
    alphas_A: np.ndarray,
    kept: np.ndarray,
    views: ViewSettings,
    session: Session,
    statistics: Statistics = "measured",
) -> Iterator[Callable[[Tensor], Tensor]]:
    """(1 − α)·w + α·w' for each α, as a function from uint8 views to logits; one at a time, since they share memory.

    Statistics are measured on the views that a training would see first: plain training images, which a network knows
    by heart, would give it others than the ones that it was trained with, and a larger error on held-out images.
    """
    built, device = ends[0], session.accelerator.device
    inputs = place(built, device)
    w, other = ({name: x.to(device, copy=True) for name, x in end.model.state_dict().items()} for end in ends)
    logits = student_logits(built.model.eval(), inputs, session.accelerator)
    seen = torch.from_numpy(kept[first_by_hash(key(0, "statistics"), kept, min(len(kept), FOR_STATISTICS))])
    whole = replace(session.place, rank=0, world=1)  # every process needs the same statistics
    reader = Reader(session.data.train, views, kept, session.data.num_classes, whole)
    for alpha in alphas_A:
        built.model.load_state_dict(interpolated(other, w, float(alpha)))
        if statistics == "measured" and normalises_batches(built):
            batches = reader.read((part, torch.zeros_like(part)) for part in seen.split(AT_ONCE))
            with_fresh_statistics(built.model, (inputs(batch.images) for batch in batches), device)
        yield logits


def normalises_batches(built: BuiltModel) -> bool:
    """Whether a network has statistics of BatchNorm."""
    return any(isinstance(module, _BatchNorm) for module in built.model.modules())
