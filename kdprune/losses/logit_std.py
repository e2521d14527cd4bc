"""Logit standardisation: the student is asked for the teacher's shape of logits, not for its scale."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.losses.common.sum import build_loss
from kdprune.registry import register


def standardise(logits_NC: Tensor) -> Tensor:
    """(z − mean) / (std + 1e-7) of each sample (Sun et al. 2024, algorithm 1).

    std divides by C − 1, as in the authors' code, from which their numbers come. Equal logits stay equal (all 0).
    """
    std_N1 = logits_NC.std(dim=1, keepdim=True)
    return (logits_NC - logits_NC.mean(1, keepdim=True)) / (std_N1 + 1e-7)


@register("losses", "logit_std")
class LogitStd(DistillLoss):
    """Any loss of logits, on standardised logits (Sun et al., CVPR 2024): `logit_std`, `logit_std(loss='dkd(beta=4)')`.

    The paper: T = 2, weight 9 beside a cross-entropy of weight 0.1. Measure before recommending it: gains differ much
    between teachers. Two standardised logits are ±0.7 whatever the prediction, so at least three classes are needed.

    Args:
        loss: expression of the wrapped loss.
        temperature: handed to the wrapped loss.
    """

    needs_all_logits = True  # their mean and deviation
    min_classes = 3

    def __init__(self, loss: str = "kd", temperature: float = 2.0) -> None:
        super().__init__()
        self.loss = build_loss(loss, temperature)
        if self.loss.needs_features:
            raise ValueError(f"logit_std is for losses of logits, and {loss!r} reads features: add it outside")
        self.needs_labels = self.loss.needs_labels
        self.accepts_mixed_labels = self.loss.accepts_mixed_labels

    def check(self, num_classes: int) -> None:
        super().check(num_classes)
        self.loss.check(num_classes)

    def compute(self, batch: LossInput) -> Tensor:
        student_NC, teacher_NC = standardise(batch.student_logits), standardise(batch.teacher_logits)
        loss: Tensor = self.loss(replace(batch, student_logits=student_NC, teacher_logits=teacher_NC))
        return loss
