"""What the teachers say of a batch: computed at every step, or read from a cache that fills on the way.

Shapes: N samples, C classes, W words of a cache entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.data.reader import Batch
from kdprune.models.features import Features
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.ensemble import combine, correctness_weights, normalised
from kdprune.teachers.teacher import Teacher


class OnlineTargets:
    """The teachers run at every step.

    Args:
        teachers: one or several.
        temperature: of the run.
        weights: of each teacher (default: equal).
        temperatures: of each teacher (default: the run's).
        features: taps on the teacher's layers, for losses that compare them (one teacher only).
        by_correctness: weigh the teachers anew for every sample, by the probability that they give to its label.

    Attributes:
        forward_samples: what the teachers cost this process so far, as samples that went through one of them.
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
        self.forward_samples = 0

    def __call__(self, batch: Batch) -> Tensor:
        """Logits N×C of the teachers as one, float32, without gradient."""
        logits = self.logits(batch)
        weights: Sequence[float | Tensor] = self.weights
        if self.by_correctness:
            weights = correctness_weights(logits, self.weights, batch.labels)
        return combine(logits, self.temperature, weights, self.temperatures)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: what was spent before a run was stopped is not forgotten."""
        return {"forward_samples": self.forward_samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.forward_samples = state["forward_samples"]

    def count_lost(self, forward_samples: float) -> None:
        """Count what was spent up to a kill, and is not in the checkpoint."""
        self.forward_samples = max(self.forward_samples, round(forward_samples))

    def logits(self, batch: Batch) -> list[Tensor]:
        """Each teacher's own logits, N×C."""
        self.forward_samples += len(batch.ids) * len(self.teachers)
        return [teacher(batch.images) for teacher in self.teachers]


class MeanTargets(OnlineTargets):
    """The teacher is the student's own moving average (Tarvainen & Valpola 2017), on the same view as the student."""

    def __init__(self, temperature: float) -> None:
        super().__init__([], temperature, [1.0])
        self.temperatures = [temperature]
        self._logits: Callable[[Tensor], Tensor] | None = None

    def follow(self, logits: Callable[[Tensor], Tensor]) -> None:
        """Set the moving average, from uint8 views to logits, in eval mode: it is made after the targets are."""
        self._logits = logits

    @torch.no_grad()
    def logits(self, batch: Batch) -> list[Tensor]:
        assert self._logits is not None
        self.forward_samples += len(batch.ids)
        return [self._logits(batch.images)]


class CachedTargets(OnlineTargets):
    """Logits come from a cache for each teacher; what it lacks is computed and written to it.

    What was just computed is rounded like what is read, so a run gives the same whether it fills the cache or finds it
    full.

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

    def logits(self, batch: Batch) -> list[Tensor]:
        return [
            self._of_teacher(teacher, cache, temperature, batch)
            for teacher, cache, temperature in zip(self.teachers, self.caches, self.temperatures, strict=True)
        ]

    def _of_teacher(self, teacher: Teacher, cache: TargetCache, temperature: float, batch: Batch) -> Tensor:
        ids, views = batch.ids.numpy(), batch.views.numpy()
        words = np.empty((len(ids), cache.entries.words), dtype=np.int16)
        stored = np.empty(len(ids), dtype=bool)
        for view, positions in _by_view(views):
            words[positions], stored[positions] = cache.read(view, ids[positions])
        if not stored.all():
            missing = np.flatnonzero(~stored)
            words[missing] = self._compute(teacher, cache, batch, missing)
            for view, positions in _by_view(views[missing]):
                cache.write(view, ids[missing[positions]], words[missing[positions]])
        host = torch.from_numpy(words)
        if batch.images.device.type == "cuda":
            host = host.pin_memory()
        return cache.entries.decode(host.to(batch.images.device, non_blocking=True), temperature)

    def _compute(self, teacher: Teacher, cache: TargetCache, batch: Batch, positions: np.ndarray) -> np.ndarray:
        """Entries of a part of a batch, int16 N×W: the only place where the host waits for the device."""
        self.forward_samples += len(positions)
        images = batch.images
        if len(positions) < len(images):
            images = images[torch.from_numpy(positions).to(images.device)]
        return cache.entries.encode(teacher(images)).cpu().numpy()


def _by_view(views: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each view of a batch and where it stands; a batch has one or, at the border of epochs, two."""
    first = views[0]
    if (views == first).all():
        yield int(first), np.arange(len(views))
        return
    for view in np.unique(views):
        yield int(view), np.flatnonzero(views == view)
