"""Relational distillation: the student matches distances and angles between samples, not features.

Shapes: N samples, D features (whatever shape, flattened).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput, non_negative
from kdprune.losses.common.features import FeatureLoss
from kdprune.registry import register


def relations(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Distances over their mean, and cosines at every vertex (Park et al. 2019, the potentials ψ_D and ψ_A).

    Both are computed from the N×N inner products, to save the memory of N×N×D differences. Points closer than a
    thousandth of the root mean square distance count as the same point: their distance is 0 and they span no angle.

    Returns:
        Distances N×N, and cosines N×N×N, entry [j, i, k] at vertex j between i and k.
    """
    centred_ND = features_ND - features_ND.mean(0)  # far from the origin, rounding would drown small distances
    inner_NN = centred_ND @ centred_ND.T
    norm_N = inner_NN.diagonal()
    square_NN = norm_N[:, None] + norm_N[None, :] - 2 * inner_NN
    apart_NN = square_NN > 1e-6 * square_NN.detach().mean()
    length_NN = square_NN.where(apart_NN, 1).sqrt()  # the gradient of √ is infinite at 0
    distance_NN = length_NN.where(apart_NN, 0)
    pairs = max(len(features_ND) * (len(features_ND) - 1), 1)
    mean = (distance_NN.sum() / pairs).clamp_min(1e-12)

    # ⟨x_i − x_j, x_k − x_j⟩, over both lengths
    inner_NNN = inner_NN[None] - inner_NN[:, :, None] - inner_NN[:, None, :] + norm_N[:, None, None]
    inverse_NN = length_NN.reciprocal().where(apart_NN, 0)
    return distance_NN / mean, inner_NNN * inverse_NN[:, :, None] * inverse_NN[:, None, :]


def rkd(student_ND: Tensor, teacher_ND: Tensor, distance: float, angle: float) -> Tensor:
    """distance·L_D + angle·L_A, each the mean Huber loss over pairs and triplets (Park et al. 2019, section 3.2).

    The means run over all N² and N³ entries, including those of a sample with itself, which add 0: the usual weights
    belong to the authors' code, which does so. Widths may differ.
    """
    student, teacher = relations(student_ND), relations(teacher_ND)
    return distance * F.smooth_l1_loss(student[0], teacher[0]) + angle * F.smooth_l1_loss(student[1], teacher[1])


@register("losses", "rkd")
class RKD(FeatureLoss):
    """Relational knowledge distillation (Park et al., CVPR 2019), summed over pairs. Distance 25, angle 50.

    Memory grows with N³: 67 MB an array at 256 samples a process, 0.5 GB at 512. One or two samples give 0.
    """

    relational = True

    def __init__(self, layers: Sequence[tuple[str, str]] = (), distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__(layers)
        self.distance, self.angle = non_negative("distance", distance), non_negative("angle", angle)

    def compute(self, batch: LossInput) -> Tensor:
        values = [rkd(s.flatten(1), t.flatten(1), self.distance, self.angle) for s, t in self.pairs(batch)]
        return torch.stack(values).sum()
