"""What the teachers say of a batch, computed when it is asked for.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdprune.data.reader import Batch
from kdprune.models.features import Features
from kdprune.teachers.ensemble import combine, normalised
from kdprune.teachers.teacher import Teacher


class OnlineTargets:
    """The teachers run at every step.

    Args:
        teachers: one or several.
        temperature: of the run.
        weights: of each teacher (default: equal).
        temperatures: of each teacher (default: the run's).
        features: taps on the teacher's layers, for losses that compare them (one teacher only).
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        temperature: float,
        weights: Sequence[float] | None = None,
        temperatures: Sequence[float] | None = None,
        features: Features | None = None,
    ) -> None:
        self.teachers = list(teachers)
        self.temperature = temperature
        self.weights = normalised(weights, len(self.teachers))
        self.temperatures = list(temperatures or [temperature] * len(self.teachers))
        self.features = features
        self.forward_passes = 0

    def __call__(self, batch: Batch) -> Tensor:
        """Logits N×C of the teachers as one, float32, without gradient."""
        return combine(self.logits(batch), self.temperature, self.weights, self.temperatures)

    def logits(self, batch: Batch) -> list[Tensor]:
        """Each teacher's own logits, N×C."""
        self.forward_passes += len(batch.ids) * len(self.teachers)
        return [teacher(batch.images) for teacher in self.teachers]
