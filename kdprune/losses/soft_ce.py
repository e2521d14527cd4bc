"""Cross-entropy with the teacher's softened predictions as targets.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput, positive
from kdprune.losses.common.reduction import Reduction
from kdprune.registry import register


def soft_ce(
    student_logits_NC: Tensor, teacher_logits_NC: Tensor, temperature: float, reduction: Reduction = "mean"
) -> Tensor:
    """−T²·Σ_i p_t,i·log p_s,i at temperature T (Hinton et al. 2015, section 2).

    Its gradient is that of `kd`. Its value exceeds that of `kd` by T² times the teacher's entropy, so it stays above
    zero even for a student that equals its teacher.
    """
    target_NC = F.softmax(teacher_logits_NC / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student_logits_NC / temperature, target_NC, reduction=reduction)


@register("losses", "soft_ce")
class SoftCE(DistillLoss):
    """Soft-target cross-entropy, for comparing curves with code that reports it. It reads no labels."""

    min_classes = 2

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def compute(self, batch: LossInput) -> Tensor:
        return soft_ce(batch.student_logits, batch.teacher_logits, self.temperature)

    def per_sample(self, batch: LossInput) -> Tensor:
        return soft_ce(batch.student_logits, batch.teacher_logits, self.temperature, reduction="none")
