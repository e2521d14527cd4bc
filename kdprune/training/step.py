"""One training step's loss: (1 - α)·CE + α·L_KD (Ben-Baruch et al. 2025, arXiv 2403.07854, eq. 1).

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdprune.data.reader import Batch, to_device
from kdprune.losses.common.base import LossInput
from kdprune.losses.common.reduction import Reduction
from kdprune.models.features import Features
from kdprune.models.inputs import Inputs

MEASURED = ("samples", "loss", "task_loss", "kd_loss", "correct", "agreement", "teacher_entropy")


class Targets(Protocol):
    """What the teachers say of a batch."""

    temperature: float
    features: Features | None
    forward_samples: int

    def __call__(self, batch: Batch) -> Tensor: ...

    def count_lost(self, forward_samples: float) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Distillation:
    """What a student is taught beside its labels.

    Attributes:
        loss: of distillation, on the device.
        targets: the teachers.
        alpha: the weight of the loss as a function of the progress of training in [0, 1].
        features: taps on the student's layers, for losses that compare them.
    """

    loss: nn.Module
    targets: Targets
    alpha: Callable[[float], float]
    features: Features | None = None


class StepResult(NamedTuple):
    """What came out of a batch.

    Attributes:
        loss, task_loss, kd_loss: scalars; the first one has a gradient.
        output: the student's logits N×C.
        measured: sums over the batch in the order of `MEASURED`, float32, on the device.
        each: the loss of each sample before its weight, float32 N; None where samples have no weights.
    """

    loss: Tensor
    task_loss: Tensor
    kd_loss: Tensor
    output: Tensor
    measured: Tensor
    each: Tensor | None = None


class DistillStep:
    """Student, teachers and loss, applied to a batch.

    Args:
        student: as Accelerate prepared it.
        inputs: from uint8 views to the student's input.
        distillation: None for plain training; its loss as Accelerate prepared it.
        smoothing: label smoothing of the cross-entropy.
        labelled: whether the data has labels; without, there is no cross-entropy.
    """

    def __init__(
        self,
        student: Callable[[Tensor], Tensor],
        inputs: Inputs,
        distillation: Distillation | None,
        smoothing: float = 0.0,
        labelled: bool = True,
    ) -> None:
        self.student, self.inputs, self.distillation = student, inputs, distillation
        self.smoothing, self.labelled = smoothing, labelled

    def __call__(self, batch: Batch, alpha: float) -> StepResult:
        """The loss of a batch, without backward pass."""
        output = self.student(self.inputs(batch.images))
        teacher_logits = None if self.distillation is None else self.distillation.targets(batch)
        if batch.weights is None:
            losses = self._losses(batch, output, teacher_logits, alpha, "mean")
            return self._result(batch, output, losses, teacher_logits)
        of_each = self._losses(batch, output, teacher_logits, alpha, "none")
        loss, task_loss, kd_loss = ((batch.weights * loss_N).mean() for loss_N in of_each)
        result = self._result(batch, output, (loss, task_loss, kd_loss), teacher_logits)
        return result._replace(each=of_each[0].detach())

    def _losses(
        self, batch: Batch, output: Tensor, teacher_logits: Tensor | None, alpha: float, reduction: Reduction
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is trained on, cross-entropy and distillation, as scalars or of each sample, N."""
        logits, distillation = output.float(), self.distillation
        zero = logits.new_zeros(() if reduction == "mean" else len(logits))
        task_loss = zero
        if self.labelled:
            task_loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing, reduction=reduction)
        if distillation is None or teacher_logits is None:
            return task_loss, task_loss, zero
        features = distillation.targets.features
        batch_of_loss = LossInput(
            output,
            teacher_logits,
            batch.labels if self.labelled else None,
            to_device(batch.ids, output.device),
            distillation.features.taken() if distillation.features else {},
            features.taken() if features else {},
        )
        kd_loss = distillation.loss(batch_of_loss, reduction=reduction)
        loss = (1 - alpha) * task_loss + alpha * kd_loss if self.labelled else alpha * kd_loss
        return loss, task_loss, kd_loss

    @torch.no_grad()
    def _result(
        self, batch: Batch, output: Tensor, losses: tuple[Tensor, Tensor, Tensor], teacher: Tensor | None
    ) -> StepResult:
        n, (loss, task, kd) = len(output), losses
        prediction = output.argmax(1)
        label = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
        zero = loss.new_zeros(())
        agreement = entropy = zero
        if teacher is not None and self.distillation is not None:
            agreement = (prediction == teacher.argmax(1)).sum()
            log_p = torch.log_softmax(teacher / self.distillation.targets.temperature, 1)
            entropy = -(log_p.exp() * log_p).sum()
        measured = torch.stack(
            [
                zero + n,
                n * loss.detach(),
                n * task.detach(),
                n * kd.detach(),
                (prediction == label).sum(),
                agreement,
                entropy,
            ]
        ).float()
        return StepResult(loss, task, kd, output, measured)
