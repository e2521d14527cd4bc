"""Hard-label distillation: the class that the teacher predicts is the label.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.losses.common.reduction import Reduction
from kdprune.registry import register


def hard(student_logits_NC: Tensor, teacher_logits_NC: Tensor, reduction: Reduction = "mean") -> Tensor:
    """−log p_s of the class that the teacher predicts (Touvron et al. 2021, DeiT, eq. 3)."""
    return F.cross_entropy(student_logits_NC, teacher_logits_NC.argmax(dim=1), reduction=reduction)


@register("losses", "hard")
class Hard(DistillLoss):
    """DeiT's hard distillation: no temperature, no weight to tune.

    It reads no labels: under mixup the teacher classifies the mixed image itself.
    """

    min_classes = 2

    def compute(self, batch: LossInput) -> Tensor:
        return hard(batch.student_logits, batch.teacher_logits)

    def per_sample(self, batch: LossInput) -> Tensor:
        return hard(batch.student_logits, batch.teacher_logits, reduction="none")
