"""Hinton's distillation: the divergence from the teacher's to the student's softened predictions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput, positive
from kdprune.registry import register


def kd(student_logits_NC: Tensor, teacher_logits_NC: Tensor, temperature: float) -> Tensor:
    """T²·KL(p_t ‖ p_s), both at temperature T, averaged over samples (Hinton et al. 2015, section 2).

    T² keeps the gradient's size the same at every T: ∂/∂z_s = T·(p_s − p_t)/N.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(student_logits_NC / temperature, dim=1),
        F.log_softmax(teacher_logits_NC / temperature, dim=1),
        # not "mean", which divides by the number of classes, too
        reduction="batchmean",
        log_target=True,
    )


@register("losses", "kd")
class KD(DistillLoss):
    """Hinton's distillation. It reads no labels, so mixed and missing ones are fine. Usual T: 1–20, 4 on CIFAR."""

    min_classes = 2

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def compute(self, batch: LossInput) -> Tensor:
        return kd(batch.student_logits, batch.teacher_logits, self.temperature)
