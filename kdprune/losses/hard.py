"""Hard-label distillation: the teacher's decision is the label."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.registry import register


def hard(student_logits_NC: Tensor, teacher_logits_NC: Tensor) -> Tensor:
    """−log p_s of the class that the teacher prefers, averaged over samples (Touvron et al. 2021, DeiT, eq. 3)."""
    return F.cross_entropy(student_logits_NC, teacher_logits_NC.argmax(dim=1))


@register("losses", "hard")
class Hard(DistillLoss):
    """DeiT's hard distillation: no temperature, no weight to tune. It reads no labels.

    Under mixup the teacher decides about the mixed image itself, so mixed labels are of no concern.
    """

    min_classes = 2

    def compute(self, batch: LossInput) -> Tensor:
        return hard(batch.student_logits, batch.teacher_logits)
