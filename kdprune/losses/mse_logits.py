"""Regression of the student's logits on the teacher's.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.losses.common.reduction import Reduction, mean_square
from kdprune.registry import register


def mse_logits(student_logits_NC: Tensor, teacher_logits_NC: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Mean over samples and classes of (z_s − z_t)² (Ba & Caruana 2014; Kim et al. 2021).

    For T → ∞ `kd` tends to half of it, but for a shift of all logits of a sample, which `kd` does not see.
    """
    return mean_square(student_logits_NC, teacher_logits_NC, reduction)


@register("losses", "mse_logits")
class MSELogits(DistillLoss):
    """Logit regression: no temperature, no labels. It works with one class, too."""

    needs_all_logits = True

    def compute(self, batch: LossInput) -> Tensor:
        return mse_logits(batch.student_logits, batch.teacher_logits)

    def per_sample(self, batch: LossInput) -> Tensor:
        return mse_logits(batch.student_logits, batch.teacher_logits, reduction="none")
