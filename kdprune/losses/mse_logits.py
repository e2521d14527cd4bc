"""Regression of the student's logits on the teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.registry import register


def mse_logits(student_logits_NC: Tensor, teacher_logits_NC: Tensor) -> Tensor:
    """Mean over samples and classes of (z_s − z_t)² (Ba & Caruana 2014; Kim et al. 2021).

    The limit of `kd` for T → ∞, up to a factor 1/2 and with the logits' means matched, too.
    """
    return F.mse_loss(student_logits_NC, teacher_logits_NC)


@register("losses", "mse_logits")
class MSELogits(DistillLoss):
    """Logit regression: no temperature, no labels. Works with one class, too."""

    needs_all_logits = True

    def compute(self, batch: LossInput) -> Tensor:
        return mse_logits(batch.student_logits, batch.teacher_logits)
