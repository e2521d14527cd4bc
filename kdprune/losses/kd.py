"""Hinton's distillation: the divergence from the teacher's to the student's softened predictions.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput, positive
from kdprune.losses.common.reduction import Reduction
from kdprune.registry import register


def kd(
    student_logits_NC: Tensor, teacher_logits_NC: Tensor, temperature: float, reduction: Reduction = "mean"
) -> Tensor:
    """T²·KL(p_t ‖ p_s), both at temperature T (Hinton et al. 2015, section 2).

    T² keeps the gradient's size the same at every T: ∂/∂z_s = T·(p_s − p_t)/N.
    """
    divergence = F.kl_div(
        F.log_softmax(student_logits_NC / temperature, dim=1),
        F.log_softmax(teacher_logits_NC / temperature, dim=1),
        # kl_div's "mean" would divide by the number of classes, too
        reduction="batchmean" if reduction == "mean" else "none",
        log_target=True,
    )
    return temperature**2 * (divergence if reduction == "mean" else divergence.sum(1))


@register("losses", "kd")
class KD(DistillLoss):
    """Hinton's distillation. It reads no labels, so they may be mixed or missing. Usual T: 1–20, 4 on CIFAR."""

    min_classes = 2

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def compute(self, batch: LossInput) -> Tensor:
        return kd(batch.student_logits, batch.teacher_logits, self.temperature)

    def per_sample(self, batch: LossInput) -> Tensor:
        return kd(batch.student_logits, batch.teacher_logits, self.temperature, reduction="none")
