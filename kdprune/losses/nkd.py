"""Normalised distillation: the other classes compared after both sides are made to add up to one."""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput, label_parts, non_negative, positive
from kdprune.losses.common.target import split
from kdprune.registry import register


def nkd(
    student_logits_NC: Tensor, teacher_logits_NC: Tensor, target: Tensor, temperature: float, gamma: float
) -> Tensor:
    """−t_y·log s_y − γT²·Σ_{i≠y} t̂_i·log ŝ_i, averaged over samples (Yang et al. 2023, NKD).

    t_y, s_y are probabilities at T = 1; t̂, ŝ are softmax(z/T) among the classes other than y. Cross-entropies both,
    so a student that equals its teacher still has a loss above zero. A mixed label stands for its two classes: the
    loss is λ·NKD(y_a) + (1 − λ)·NKD(y_b).

    Args:
        student_logits_NC, teacher_logits_NC: the models' logits.
        target: class ids N, or class probabilities N×C.
        temperature: of the part that leaves the target out.
        gamma: weight of that part.
    """
    classes_NK, shares_NK = label_parts(target)
    loss_N = student_logits_NC.new_zeros(len(student_logits_NC))
    for label_N, share_N in zip(classes_NK.unbind(1), shares_NK.unbind(1), strict=True):
        sure_N = split(teacher_logits_NC, label_N).target_N.exp() * split(student_logits_NC, label_N).target_N
        s, t = split(student_logits_NC / temperature, label_N), split(teacher_logits_NC / temperature, label_N)
        rest_N = torch.sum(t.share_NC() * s.among_rest_NC, dim=1)
        loss_N = loss_N - share_N * (sure_N + gamma * temperature**2 * rest_N)
    return loss_N.mean()


@register("losses", "nkd")
class NKD(DistillLoss):
    """Normalised knowledge distillation (Yang et al., ICCV 2023). The paper: γ = 1.5, T = 1 (`nkd(temperature=1)`).

    With two classes nothing is left beside the target: the second part is 0 and the first, a cross-entropy weighted by
    the teacher's confidence, is no distillation (its minimum is certainty, not the teacher). So two are refused.
    """

    needs_labels = True
    min_classes = 3

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__()
        self.gamma = non_negative("gamma", gamma)
        self.temperature = positive("temperature", temperature)

    def temperatures(self) -> tuple[float, ...]:
        return 1.0, self.temperature

    def compute(self, batch: LossInput) -> Tensor:
        assert batch.target is not None
        return nkd(batch.student_logits, batch.teacher_logits, batch.target, self.temperature, self.gamma)
