"""Distillation from a stronger teacher: predictions should correlate with the teacher's instead of equalling them.

Shapes: N samples, B samples of all processes, C classes, R rows of D entries.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import DistillLoss, LossInput, non_negative, positive
from kdprune.losses.common.gather import gather_batch
from kdprune.registry import register

# As in the authors' code, added to the product of norms: a class whose probability hardly varies is uncorrelated.
EPSILON = 1e-8


def correlation(a_RD: Tensor, b_RD: Tensor) -> Tensor:
    """Pearson's correlation of each row of `a` with the same row of `b`."""
    a_RD, b_RD = a_RD - a_RD.mean(1, keepdim=True), b_RD - b_RD.mean(1, keepdim=True)
    return torch.sum(a_RD * b_RD, dim=1) / (a_RD.norm(dim=1) * b_RD.norm(dim=1) + EPSILON)


def dist(student_logits_NC: Tensor, teacher_logits_NC: Tensor, temperature: float, beta: float, gamma: float) -> Tensor:
    """T²·[β·(1 − ρ_row) + γ·(1 − ρ_col)] (Huang et al. 2022, section 4).

    ρ_row is the correlation of the two predictions for a sample, averaged over samples; ρ_col that of a class's
    probabilities over the batch, averaged over classes. The batch is that of all processes together, so that the loss
    does not depend on their number. The second part is 0 for a batch of one sample, which has no correlation.
    """
    student_NC = F.softmax(student_logits_NC / temperature, dim=1)
    teacher_NC = F.softmax(teacher_logits_NC / temperature, dim=1)
    loss = beta * (1 - correlation(student_NC, teacher_NC).mean())
    student_BC, teacher_BC = gather_batch(student_NC), gather_batch(teacher_NC)
    if len(student_BC) > 1:
        loss = loss + gamma * (1 - correlation(student_BC.T, teacher_BC.T).mean())
    return temperature**2 * loss


@register("losses", "dist")
class DIST(DistillLoss):
    """DIST (Huang et al., NeurIPS 2022). It reads no labels. T = 1 on ImageNet, 4 on CIFAR."""

    needs_all_logits = True  # the mass of the other classes does not tell how each of them varies
    relational = True  # by ρ_col
    min_classes = 2

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.beta, self.gamma = non_negative("beta", beta), non_negative("gamma", gamma)
        self.temperature = positive("temperature", temperature)

    def check(self, num_classes: int) -> None:
        """Refuse fewer than two classes. Warn of two: the correlation of two numbers is ±1 whatever they are."""
        super().check(num_classes)
        if num_classes == 2:
            warnings.warn("dist with 2 classes: the beta part has no gradient, only gamma teaches", stacklevel=2)

    def compute(self, batch: LossInput) -> Tensor:
        return dist(batch.student_logits, batch.teacher_logits, self.temperature, self.beta, self.gamma)
