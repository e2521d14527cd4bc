"""Knowledge review: the student's deep features are fused into its shallow ones and compared at each level.

Shapes: N samples, C channels, H×W positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput, positive
from kdprune.losses.common.features import FeatureLoss, as_map
from kdprune.losses.common.reduction import Reduction, mean_square
from kdprune.registry import register


def hierarchical_context(student_NCHW: Tensor, teacher_NCHW: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Mean squared difference at full size and averaged to 4×4, 2×2, 1×1 (Chen et al. 2021, section 3.4, HCL).

    Each size has half the weight of the one before, sizes not below H are skipped, and the weights add up to 1.
    """
    loss, total, weight = mean_square(student_NCHW, teacher_NCHW, reduction), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student_NCHW.shape[2]:
            weight /= 2
            total += weight
            student, teacher = (F.adaptive_avg_pool2d(x, size) for x in (student_NCHW, teacher_NCHW))
            loss = loss + weight * mean_square(student, teacher, reduction)
    return loss / total


class Fusion(nn.Module):
    """Attention-based fusion (their section 3.3, ABF) of a level's features with those fused from deeper levels."""

    def __init__(self, channels: int, middle: int, out_channels: int, deepest: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.attend = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())
        self.leave = nn.Sequential(
            nn.Conv2d(middle, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, level_NCHW: Tensor, deeper_NCHW: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The features to compare with the teacher's map, of its height and width `size`, and those to fuse next."""
        mixed = self.enter(level_NCHW)
        if self.attend is not None and deeper_NCHW is not None:
            deeper = F.interpolate(deeper_NCHW, list(mixed.shape[2:]), mode="nearest")
            level_N1HW, deeper_N1HW = self.attend(torch.cat([mixed, deeper], dim=1)).chunk(2, dim=1)
            mixed = level_N1HW * mixed + deeper_N1HW * deeper
        mixed = F.interpolate(mixed, list(size), mode="nearest")
        return self.leave(mixed), mixed


@register("losses", "review")
class Review(FeatureLoss):
    """ReviewKD (Chen et al., CVPR 2021), summed over levels; weight 0.6–8, warmed up over 20 epochs in the paper.

    Fusions have batch normalisation, so a training batch of one sample fails at a level of one position, as it would in
    a model.

    Args:
        layers: from the shallowest pair to the deepest, ends of stages as a rule.
        max_width: of the fusions; their width is that of the deepest student layer, if it is less.
    """

    def __init__(self, layers: Sequence[tuple[str, str]] = (), max_width: int = 512) -> None:
        super().__init__(layers)
        self.max_width = int(positive("max_width", max_width))
        self.fusions = nn.ModuleList()

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        levels = [(as_map(s), as_map(t)) for s, t in self.features(student_features, teacher_features)]
        middle = min(self.max_width, levels[-1][0].shape[1])
        with levels[0][0].device:
            self.fusions = nn.ModuleList(
                Fusion(student.shape[1], middle, teacher.shape[1], deepest=level == len(levels) - 1)
                for level, (student, teacher) in enumerate(levels)
            )

    def compute(self, batch: LossInput) -> Tensor:
        return self._sum_over_levels(batch, "mean")

    def per_sample(self, batch: LossInput) -> Tensor:
        return self._sum_over_levels(batch, "none")

    def _sum_over_levels(self, batch: LossInput, reduction: Reduction) -> Tensor:
        loss, fused = torch.zeros((), device=batch.student_logits.device), None
        levels = list(zip(self.fusions, self.pairs(batch), strict=True))
        for fusion, (student, teacher) in reversed(levels):
            teacher_NCHW = as_map(teacher)
            student_NCHW, fused = fusion(as_map(student), fused, teacher_NCHW.shape[2:])
            loss = loss + hierarchical_context(student_NCHW, teacher_NCHW, reduction)
        return loss
