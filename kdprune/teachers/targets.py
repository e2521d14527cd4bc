"""What the teachers say of a batch: computed at every step, or read from a cache that fills on the way.

Shapes: N samples, C classes, W words of a cache entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdprune.data.reader import Batch
from kdprune.models.features import Features
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.ensemble import combine, normalised, trusted
from kdprune.teachers.teacher import Teacher

FLUSH_EVERY = 50  # batches; what a kill can lose is computed again


@dataclass
class Spent:
    """What the teachers cost so far: samples through all of them."""

    forward_samples: int = 0


class OnlineTargets:
    """The teachers run at every step.

    Args:
        teachers: one or several.
        temperature: of the run.
        weights: of each teacher (default: equal).
        temperatures: of each teacher (default: the run's).
        features: taps on the teacher's layers, for losses that compare them (one teacher only).
        by_correctness: weigh the teachers anew for every sample, by the probability that they give to its label.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        temperature: float,
        weights: Sequence[float] | None = None,
        temperatures: Sequence[float] | None = None,
        features: Features | None = None,
        by_correctness: bool = False,
    ) -> None:
        self.teachers = list(teachers)
        self.temperature = temperature
        self.weights = normalised(weights, len(self.teachers))
        self.temperatures = list(temperatures or [temperature] * len(self.teachers))
        self.features = features
        self.by_correctness = by_correctness
        self.spent = Spent()

    def __call__(self, batch: Batch) -> Tensor:
        """Logits N×C of the teachers as one, float32, without gradient."""
        logits = self.logits(batch)
        weights = trusted(logits, self.weights, batch.target) if self.by_correctness else self.weights
        return combine(logits, self.temperature, weights, self.temperatures)

    def logits(self, batch: Batch) -> list[Tensor]:
        """Each teacher's own logits, N×C."""
        self.spent.forward_samples += len(batch.ids) * len(self.teachers)
        return [teacher(batch.images) for teacher in self.teachers]

    def flush(self) -> None:
        """Nothing waits to be written."""


class MeanTargets(OnlineTargets):
    """The teacher is the student's own moving average (Tarvainen & Valpola 2017), on the same view as the student."""

    def __init__(self, temperature: float) -> None:
        super().__init__([], temperature, [1.0])
        self.temperatures = [temperature]
        self._logits: Callable[[Tensor], Tensor] | None = None

    def follow(self, logits: Callable[[Tensor], Tensor]) -> None:
        """Ask this model, from uint8 views to logits, which must be in eval mode."""
        self._logits = logits

    @torch.no_grad()
    def logits(self, batch: Batch) -> list[Tensor]:
        assert self._logits is not None
        self.spent.forward_samples += len(batch.ids)
        return [self._logits(batch.images)]


class CachedTargets(OnlineTargets):
    """Logits come from a cache for each teacher; what is not there yet is computed and put there.

    Args:
        caches: one for each teacher.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        caches: Sequence[TargetCache],
        temperature: float,
        weights: Sequence[float] | None = None,
        temperatures: Sequence[float] | None = None,
        by_correctness: bool = False,
    ) -> None:
        super().__init__(teachers, temperature, weights, temperatures, by_correctness=by_correctness)
        self.caches = list(caches)
        self._batches = 0

    def logits(self, batch: Batch) -> list[Tensor]:
        ids, views = batch.ids.numpy(), batch.views.numpy()
        return [
            self._one(teacher, cache, temperature, batch, cache.rows(ids), views)
            for teacher, cache, temperature in zip(self.teachers, self.caches, self.temperatures, strict=True)
        ]

    def _one(
        self,
        teacher: Teacher,
        cache: TargetCache,
        temperature: float,
        batch: Batch,
        rows: np.ndarray,
        views: np.ndarray,
    ) -> Tensor:
        parts = list(_by_view(views))
        there = np.empty(len(rows), dtype=bool)
        for view, where in parts:
            there[where] = cache.have(view, rows[where])
        if not there.all():
            self._fill(teacher, cache, batch, rows, views, np.flatnonzero(~there))
        words = np.empty((len(rows), cache.entries.words), dtype=np.int16)
        for view, where in parts:
            words[where] = cache.read(view, rows[where])
        host = torch.from_numpy(words)
        if batch.images.device.type == "cuda":
            host = host.pin_memory()
        return cache.entries.decode(host.to(batch.images.device, non_blocking=True), temperature)

    def _fill(
        self,
        teacher: Teacher,
        cache: TargetCache,
        batch: Batch,
        rows: np.ndarray,
        views: np.ndarray,
        lacking: np.ndarray,
    ) -> None:
        """Run the teacher on what is lacking and write what it says: the only place where the host waits."""
        self.spent.forward_samples += len(lacking)
        whole = len(lacking) == len(rows)
        images = batch.images if whole else batch.images[torch.from_numpy(lacking).to(batch.images.device)]
        words = cache.entries.encode(teacher(images)).cpu().numpy()
        for view, where in _by_view(views[lacking]):
            cache.write(view, rows[lacking[where]], words[where])
        self._batches += 1
        if self._batches % FLUSH_EVERY == 0:
            cache.flush()

    def flush(self) -> None:
        """Bring everything to the disk."""
        for cache in self.caches:
            cache.flush()


def _by_view(views: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each view of a batch and where it stands; a batch has one or, at the border of epochs, two."""
    first = views[0]
    if (views == first).all():
        yield int(first), np.arange(len(views))
        return
    for view in np.unique(views):
        yield int(view), np.flatnonzero(views == view)
