"""Decoupled distillation: the target class and the other classes weighted separately.

Shapes: N samples, C classes, K classes mixed into one label.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput, label_parts, non_negative, positive
from kdprune.losses.common.reduction import Reduction, reduce
from kdprune.losses.common.target import split
from kdprune.registry import register


def dkd(
    student_logits_NC: Tensor,
    teacher_logits_NC: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    beta: float,
    reduction: Reduction = "mean",
) -> Tensor:
    """T²·(α·TCKD + β·NCKD) (Zhao et al. 2022, eq. 7).

    TCKD is the KL divergence of [p_y, 1 − p_y], NCKD the one among the other classes; Hinton's loss is TCKD + (1 − p_y
    of the teacher)·NCKD. A mixed label has two classes: its loss is λ·DKD(y_a) + (1 − λ)·DKD(y_b).

    Args:
        student_logits_NC, teacher_logits_NC: the models' logits.
        labels: class ids N, or class probabilities N×C.
        temperature: of both predictions.
        alpha: weight of the target class.
        beta: weight of the other classes; the paper takes 1–10, larger for a more confident teacher.
        reduction: the mean over samples, or the loss of each.
    """
    student_NC, teacher_NC = student_logits_NC / temperature, teacher_logits_NC / temperature
    classes_NK, shares_NK = label_parts(labels)
    loss_N = student_NC.new_zeros(len(student_NC))
    for label_N, share_N in zip(classes_NK.unbind(1), shares_NK.unbind(1), strict=True):
        s, t = split(student_NC, label_N), split(teacher_NC, label_N)
        tckd_N = t.target_N.exp() * (t.target_N - s.target_N) + t.rest_N.exp() * (t.rest_N - s.rest_N)
        nckd_N = torch.sum(t.share_NC() * (t.among_rest_NC - s.among_rest_NC), dim=1)
        loss_N = loss_N + share_N * (alpha * tckd_N + beta * nckd_N)
    return temperature**2 * reduce(loss_N, reduction)


@register("losses", "dkd")
class DKD(DistillLoss):
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022). CIFAR-100: α = 1, β = 8, T = 4."""

    needs_labels = True
    min_classes = 2

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta = non_negative("alpha", alpha), non_negative("beta", beta)
        self.temperature = positive("temperature", temperature)

    def check(self, num_classes: int) -> None:
        """Refuse fewer than two classes. Warn of two: NCKD is then 0, and TCKD is Hinton's loss."""
        super().check(num_classes)
        if num_classes == 2:
            warnings.warn("dkd with 2 classes is alpha * kd: beta has no effect", stacklevel=2)

    def compute(self, batch: LossInput) -> Tensor:
        return self._dkd(batch, "mean")

    def per_sample(self, batch: LossInput) -> Tensor:
        return self._dkd(batch, "none")

    def _dkd(self, batch: LossInput, reduction: Reduction) -> Tensor:
        assert batch.labels is not None
        student_NC, teacher_NC = batch.student_logits, batch.teacher_logits
        return dkd(student_NC, teacher_NC, batch.labels, self.temperature, self.alpha, self.beta, reduction)
