"""Hints: a projection of the student's features should equal the teacher's.

Shapes: N samples, C channels, H×W positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdprune.losses.common.base import LossInput
from kdprune.losses.common.features import FeatureLoss, as_map, to_smaller
from kdprune.losses.common.reduction import Reduction, mean_square
from kdprune.registry import register


def hint(student_NCHW: Tensor, teacher_NCHW: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Mean squared difference of two maps of equal width, at the smaller size (Romero et al. 2015, eq. 3, times 2)."""
    return mean_square(*to_smaller(student_NCHW, teacher_NCHW), reduction)


@register("losses", "fitnet")
class FitNet(FeatureLoss):
    """FitNets (Romero et al., ICLR 2015), trained jointly with the task. Summed over pairs; usual weight 100.

    Where the widths differ, a 1×1 convolution projects the student's features to the teacher's width.
    """

    def __init__(self, layers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(layers)
        self.projectors = nn.ModuleList()

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        self.projectors = nn.ModuleList(
            _projector(as_map(student), as_map(teacher).shape[1])
            for student, teacher in self.features(student_features, teacher_features)
        )

    def compute(self, batch: LossInput) -> Tensor:
        return self._sum_over_pairs(batch, "mean")

    def per_sample(self, batch: LossInput) -> Tensor:
        return self._sum_over_pairs(batch, "none")

    def _sum_over_pairs(self, batch: LossInput, reduction: Reduction) -> Tensor:
        values = [
            hint(projector(as_map(student)), as_map(teacher), reduction)
            for projector, (student, teacher) in zip(self.projectors, self.pairs(batch), strict=True)
        ]
        return torch.stack(values).sum(0)


def _projector(student_NCHW: Tensor, out_channels: int) -> nn.Module:
    in_channels = student_NCHW.shape[1]
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, device=student_NCHW.device)
