"""Logit standardisation: the student matches the shape of the teacher's logits and keeps a scale of its own.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.losses.common.sum import build_loss
from kdprune.registry import register


def standardise(logits_NC: Tensor) -> Tensor:
    """(z − mean) / (std + 1e-7) of each sample (Sun et al. 2024, algorithm 1).

    std divides by C − 1, as in the code that the authors' results come from. Equal logits become zeros.
    """
    std_N1 = logits_NC.std(dim=1, keepdim=True)
    return (logits_NC - logits_NC.mean(1, keepdim=True)) / (std_N1 + 1e-7)


@register("losses", "logit_std")
class LogitStd(DistillLoss):
    """Any loss of logits, on standardised logits (Sun et al., CVPR 2024): `logit_std`, `logit_std(loss='dkd(beta=4)')`.

    The paper: T = 2, weight 9 beside a cross-entropy of weight 0.1. Gains differ much between teachers, so measure it
    on your own. It needs at least three classes: two standardised logits are ±0.7 whatever the prediction.

    Args:
        loss: expression of the wrapped loss.
        temperature: of the wrapped loss, unless its expression gives one.
    """

    needs_all_logits = True  # for their mean and standard deviation
    min_classes = 3

    def __init__(self, loss: str = "kd", temperature: float = 2.0) -> None:
        super().__init__()
        self.loss = build_loss(loss, temperature)
        if self.loss.needs_features:
            raise ValueError(f"logit_std is for losses of logits, and {loss!r} reads features: add it outside")
        self.needs_labels = self.loss.needs_labels
        self.accepts_mixed_labels = self.loss.accepts_mixed_labels
        self.relational = self.loss.relational

    def check(self, num_classes: int) -> None:
        super().check(num_classes)
        self.loss.check(num_classes)

    def compute(self, batch: LossInput) -> Tensor:
        return self.loss.compute(_standardised(batch))

    def per_sample(self, batch: LossInput) -> Tensor:
        return self.loss.per_sample(_standardised(batch))


def _standardised(batch: LossInput) -> LossInput:
    student_NC, teacher_NC = standardise(batch.student_logits), standardise(batch.teacher_logits)
    return replace(batch, student_logits=student_NC, teacher_logits=teacher_NC)
