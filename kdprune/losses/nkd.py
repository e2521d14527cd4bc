"""Normalised distillation: the predictions among the other classes, rescaled to add up to one.

Shapes: N samples, C classes, K classes mixed into one label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.losses.common.base import DistillLoss, LossInput, label_parts, non_negative, positive
from kdprune.losses.common.reduction import Reduction, reduce
from kdprune.losses.common.target import split
from kdprune.registry import register


def nkd(
    student_logits_NC: Tensor,
    teacher_logits_NC: Tensor,
    labels: Tensor,
    temperature: float,
    gamma: float,
    reduction: Reduction = "mean",
) -> Tensor:
    """−t_y·log s_y − γT²·Σ_{i≠y} t̂_i·log ŝ_i (Yang et al. 2023, NKD).

    t_y and s_y are probabilities at T = 1; t̂ and ŝ are softmax(z/T) among the classes other than y. Both parts are
    cross-entropies, so a student that equals its teacher still has a loss above zero. A mixed label has two classes:
    its loss is λ·NKD(y_a) + (1 − λ)·NKD(y_b).

    Args:
        student_logits_NC, teacher_logits_NC: the models' logits.
        labels: class ids N, or class probabilities N×C.
        temperature: of the second part, that of the other classes.
        gamma: weight of the second part.
        reduction: the mean over samples, or the loss of each.
    """
    classes_NK, shares_NK = label_parts(labels)
    loss_N = student_logits_NC.new_zeros(len(student_logits_NC))
    for label_N, share_N in zip(classes_NK.unbind(1), shares_NK.unbind(1), strict=True):
        target_N = split(teacher_logits_NC, label_N).target_N.exp() * split(student_logits_NC, label_N).target_N
        s, t = split(student_logits_NC / temperature, label_N), split(teacher_logits_NC / temperature, label_N)
        others_N = torch.sum(t.share_NC() * s.among_rest_NC, dim=1)
        loss_N = loss_N - share_N * (target_N + gamma * temperature**2 * others_N)
    return reduce(loss_N, reduction)


@register("losses", "nkd")
class NKD(DistillLoss):
    """Normalised knowledge distillation (Yang et al., ICCV 2023). The paper: γ = 1.5, T = 1 (`nkd(temperature=1)`).

    Two classes are refused. The only other class always has probability 1 among the others, so the second part is 0;
    what remains, a cross-entropy weighted by the teacher's confidence, is smallest for a student that is certain and
    not for one that equals its teacher.
    """

    needs_labels = True
    min_classes = 3

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__()
        self.gamma = non_negative("gamma", gamma)
        self.temperature = positive("temperature", temperature)

    def temperatures(self) -> tuple[float, ...]:
        return 1.0, self.temperature

    def per_sample(self, batch: LossInput) -> Tensor:
        assert batch.labels is not None
        student_NC, teacher_NC = batch.student_logits, batch.teacher_logits
        return nkd(student_NC, teacher_NC, batch.labels, self.temperature, self.gamma, reduction="none")
