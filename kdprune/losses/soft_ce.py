"""Cross-entropy with the teacher's softened predictions as targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput, positive
from kdprune.registry import register


def soft_ce(student_logits_NC: Tensor, teacher_logits_NC: Tensor, temperature: float) -> Tensor:
    """−T²·Σ_i p_t,i·log p_s,i at temperature T, averaged over samples (Hinton et al. 2015, section 2).

    Its gradient is that of `kd`; its value is larger by T² times the teacher's entropy, so it is above zero even for a
    student that equals its teacher.
    """
    target_NC = F.softmax(teacher_logits_NC / temperature, dim=1)
    return temperature**2 * F.cross_entropy(student_logits_NC / temperature, target_NC)


@register("losses", "soft_ce")
class SoftCE(DistillLoss):
    """Soft-target cross-entropy, for those who compare curves with code that reports it. It reads no labels."""

    min_classes = 2

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def compute(self, batch: LossInput) -> Tensor:
        return soft_ce(batch.student_logits, batch.teacher_logits, self.temperature)
