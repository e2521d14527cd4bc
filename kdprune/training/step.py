"""One training step's loss: (1 - α)·CE + α·L_KD (Ben-Baruch et al. 2025, arXiv 2403.07854, eq. 1).

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdprune.data.reader import Batch, to_device
from kdprune.losses.common.base import LossInput
from kdprune.models.features import Features
from kdprune.models.inputs import Inputs

MEASURED = ("samples", "loss", "task_loss", "kd_loss", "correct", "agreement", "teacher_entropy")


class Targets(Protocol):
    """What the teachers say of a batch."""

    temperature: float
    features: Features | None
    forward_samples: int

    def __call__(self, batch: Batch) -> Tensor: ...


class DistillStep:
    """Student, teachers and loss, applied to a batch.

    Args:
        student: as Accelerate prepared it.
        inputs: from uint8 views to the student's input.
        targets: the teachers, or None for plain training.
        kd: the distillation loss.
        smoothing: label smoothing of the cross-entropy.
        labelled: whether the data has labels; without, there is no cross-entropy.
        features: taps on the student's layers.
    """

    def __init__(
        self,
        student: Callable[[Tensor], Tensor],
        inputs: Inputs,
        targets: Targets | None,
        kd: nn.Module | None,
        smoothing: float = 0.0,
        labelled: bool = True,
        features: Features | None = None,
    ) -> None:
        self.student, self.inputs, self.targets, self.kd = student, inputs, targets, kd
        self.smoothing, self.labelled, self.features = smoothing, labelled, features

    def __call__(self, batch: Batch, alpha: float) -> dict[str, Tensor]:
        """The loss of a batch, without backward pass.

        Returns:
            `loss`, `task_loss`, `kd_loss` (scalars), `output` (student's logits N×C), `measured` (sums over the batch
            in the order of `MEASURED`, float32, on the device).
        """
        output = self.student(self.inputs(batch.images))
        logits = output.float()
        zero = logits.new_zeros(())
        task_loss = zero
        if self.labelled:
            task_loss = F.cross_entropy(logits, batch.target, label_smoothing=self.smoothing)
        if self.targets is None or self.kd is None:
            return self._result(batch, output, task_loss, task_loss, zero, None)
        teacher_logits = self.targets(batch)
        kd_loss = self.kd(
            LossInput(
                output,
                teacher_logits,
                batch.target if self.labelled else None,
                to_device(batch.ids, output.device),
                self.features.taken() if self.features else {},
                self.targets.features.taken() if self.targets.features else {},
            )
        )
        loss = (1 - alpha) * task_loss + alpha * kd_loss if self.labelled else alpha * kd_loss
        return self._result(batch, output, loss, task_loss, kd_loss, teacher_logits)

    @torch.no_grad()
    def _result(
        self, batch: Batch, output: Tensor, loss: Tensor, task: Tensor, kd: Tensor, teacher: Tensor | None
    ) -> dict[str, Tensor]:
        n = len(output)
        guess = output.argmax(1)
        label = batch.target if batch.target.ndim == 1 else batch.target.argmax(1)
        zero = loss.new_zeros(())
        agreement = entropy = zero
        if teacher is not None and self.targets is not None:
            agreement = (guess == teacher.argmax(1)).sum()
            log_p = torch.log_softmax(teacher / self.targets.temperature, 1)
            entropy = -(log_p.exp() * log_p).sum()
        measured = torch.stack(
            [
                zero + n,
                n * loss.detach(),
                n * task.detach(),
                n * kd.detach(),
                (guess == label).sum(),
                agreement,
                entropy,
            ]
        ).float()
        return {"loss": loss, "task_loss": task, "kd_loss": kd, "output": output, "measured": measured}
