"""Attention transfer: the student is active at the positions at which the teacher is.

Shapes: N samples, C channels, H×W positions, P = H·W.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput
from kdprune.losses.common.features import FeatureLoss, as_map, to_smaller
from kdprune.losses.common.reduction import Reduction, mean_square
from kdprune.registry import register


def attention_NP(features_NCHW: Tensor) -> Tensor:
    """Mean squared activation over channels, scaled to length 1 (Zagoruyko & Komodakis 2017, section 3.1, p = 2)."""
    return F.normalize(features_NCHW.square().mean(1).flatten(1), dim=1)


def attention_transfer(student_NCHW: Tensor, teacher_NCHW: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Mean over samples and positions of the squared difference of attention maps (their eq. 2).

    The paper prints the norm of the difference; its code takes the mean square, to which the usual weights of
    500–1000 belong. Widths may differ; a larger map is first averaged to the size of the smaller.
    """
    student_NCHW, teacher_NCHW = to_smaller(student_NCHW, teacher_NCHW)
    return mean_square(attention_NP(student_NCHW), attention_NP(teacher_NCHW), reduction)


@register("losses", "attention_transfer")
class AttentionTransfer(FeatureLoss):
    """Activation-based attention transfer (Zagoruyko & Komodakis, ICLR 2017), summed over pairs. No parameters."""

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        """Refuse maps of one position: scaled to length 1 they are all equal, so the loss would be 0."""
        for layers, (student, teacher) in zip(
            self.layers, self.features(student_features, teacher_features), strict=True
        ):
            if attention_NP(to_smaller(as_map(student), as_map(teacher))[0]).shape[1] == 1:
                raise ValueError(f"attention_transfer needs maps larger than 1×1, which {layers} are not")

    def compute(self, batch: LossInput) -> Tensor:
        return self._sum_over_pairs(batch, "mean")

    def per_sample(self, batch: LossInput) -> Tensor:
        return self._sum_over_pairs(batch, "none")

    def _sum_over_pairs(self, batch: LossInput, reduction: Reduction) -> Tensor:
        values = [attention_transfer(as_map(s), as_map(t), reduction) for s, t in self.pairs(batch)]
        return torch.stack(values).sum(0)
