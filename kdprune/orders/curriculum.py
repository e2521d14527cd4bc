"""Curricula: an epoch holds the easiest samples, or the hardest, and more of them as the training goes on.

Bengio et al. 2009; Hacohen & Weinshall 2019 (arXiv 1904.03626); Wu, Dyer & Neyshabur 2021 (arXiv 2012.03107), whose
pacing functions these are.

Shapes: N samples of the unpruned training set, K kept samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kdprune.data.counter import permutation
from kdprune.messages import listed, unknown
from kdprune.orders.common.epochs import Epochs
from kdprune.orders.common.plan import Plan
from kdprune.registry import register

_C = 10.0  # how bent `log` and `exp` are (Wu et al. 2021)

# From the share of the way to all samples that has passed, in [0, 1], to the share of the samples that come on the way.
PACINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "quadratic": lambda x: x**2,
    "root": math.sqrt,
    "exp": lambda x: math.expm1(_C * x) / math.expm1(_C),
    "log": lambda x: 1 + math.log(x + math.exp(-_C)) / _C,
    "step": math.floor,
}
ORDERS = ("easy", "hard", "random")


def share(progress: float, pacing: str, start: float, end: float) -> float:
    """The share of the samples that are let in (Wu et al. 2021, table of pacing functions, with a = end, b = start).

    Args:
        progress: of the training, in [0, 1].
        pacing: a name in `PACINGS`.
        start: the share at the beginning, in (0, 1].
        end: the progress from which on all samples are in, in [0, 1].
    """
    if progress >= end:
        return 1.0
    return min(1.0, start + (1 - start) * max(0.0, PACINGS[pacing](progress / end)))


def ranked(ids_K: np.ndarray, scores_N: np.ndarray | None, order: str, seed_key: int) -> Tensor:
    """The ids from those that are let in first to those that come last, int64 K.

    Ties are broken by a permutation, and `random` is that permutation.
    """
    shuffled = permutation(seed_key, torch.from_numpy(ids_K.astype("int64")))
    if order == "random":
        return shuffled
    assert scores_N is not None
    scores_K = torch.from_numpy(np.asarray(scores_N))[shuffled]
    return shuffled[torch.argsort(scores_K, stable=True, descending=order == "hard")]


@register("orders", "curriculum")
class Curriculum(Epochs):
    """Epochs of the first g samples by difficulty, each once, in random order; g is what the pacing function says where
    the epoch begins, at least a batch.

    The budget is that of a training without a curriculum: as many steps, in more and shorter epochs.

    Args:
        plan: with scores, unless the order is random.
        order: easy (a curriculum), hard (an anti-curriculum), or random: the control, in which only the number of
            samples grows.
        pacing: linear, quadratic, root, exp, log or step.
        start: share of the samples at the beginning, in (0, 1].
        end: progress of the training from which on all samples are in, in [0, 1].

    Raises:
        ValueError: a value that is not allowed; no scores, or NaN among those of the kept samples.
    """

    def __init__(
        self,
        plan: Plan,
        order: Literal["easy", "hard", "random"] = "easy",
        pacing: str = "linear",
        start: float = 0.2,
        end: float = 0.8,
    ) -> None:
        super().__init__(plan)
        _check(order, pacing, start, end)
        if order != "random":
            _check_scores(plan)
        self._ranked = ranked(plan.ids, plan.scores, order, plan.key("curriculum"))
        samples, least = plan.steps * plan.batch_size, min(plan.batch_size, len(plan.ids))
        seen = 0
        while seen < samples:
            count = round(share(seen / samples, pacing, start, end) * len(plan.ids))
            seen += max(least, count)
            self.ends.append(seen)
        self.epochs = self.views = len(self.ends)
        self.all_samples = samples

    @classmethod
    def reads_scores(cls, **arguments: Any) -> bool:
        """See `Dynamic.reads_scores`."""
        return arguments.get("order") != "random"

    def members(self, epoch: int) -> Tensor:
        """See `Epochs.members`."""
        return self._ranked[: self.ends[epoch] - self.begin(epoch)]


def _check(order: str, pacing: str, start: float, end: float) -> None:
    if order not in ORDERS:
        raise ValueError(unknown("order of a curriculum", str(order), ORDERS))
    if pacing not in PACINGS:
        raise ValueError(unknown("pacing", str(pacing), PACINGS))
    for name, value, fits in (("start", start, "(0, 1]"), ("end", end, "[0, 1]")):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1 or (name == "start" and value == 0):
            raise ValueError(f"{name} of a curriculum: {value!r} given, allowed is {fits}")


def _check_scores(plan: Plan) -> None:
    if plan.scores is None:
        raise ValueError(
            "a curriculum goes by the difficulty of every sample, and there are no scores; "
            "curriculum(order='random') needs none"
        )
    scores = np.asarray(plan.scores)
    if scores.ndim != 1 or len(scores) <= plan.ids[-1]:
        raise ValueError(f"scores of shape {scores.shape} given, and sample {plan.ids[-1]} is to be ordered by them")
    if len(wrong := plan.ids[np.isnan(scores[plan.ids])]):
        raise ValueError(f"{len(wrong)} samples have NaN for a score: {listed(wrong.tolist())}")
