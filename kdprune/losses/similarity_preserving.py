"""Similarity preserving: samples that the teacher finds similar should be similar for the student.

Shapes: N samples, D features (whatever shape, flattened).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput
from kdprune.losses.common.features import FeatureLoss
from kdprune.registry import register


def similarity_NN(features_ND: Tensor) -> Tensor:
    """Q·Qᵀ with rows scaled to length 1 (Tung & Mori 2019, eq. 1–2)."""
    return F.normalize(features_ND @ features_ND.T, dim=1)


def similarity_preserving(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """‖G_T − G_S‖²_F / N² (their eq. 4, one pair of layers). Widths may differ; 0 for a batch of one."""
    return F.mse_loss(similarity_NN(student_ND), similarity_NN(teacher_ND))


@register("losses", "similarity_preserving")
class SimilarityPreserving(FeatureLoss):
    """Similarity-preserving distillation (Tung & Mori, ICCV 2019), summed over pairs; usual weight 3000.

    It compares the samples of one process, as published: more processes make fewer pairs.
    """

    relational = True

    def compute(self, batch: LossInput) -> Tensor:
        values = [
            similarity_preserving(student.flatten(1), teacher.flatten(1)) for student, teacher in self.pairs(batch)
        ]
        return torch.stack(values).sum()
