"""From losses of samples to the loss of a batch, in the words of `torch.nn.functional`.

Shapes: N samples.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

# "mean": a scalar, averaged over samples; "none": the loss of each sample, N
Reduction = Literal["mean", "none"]


def reduce(loss_N: Tensor, reduction: Reduction) -> Tensor:
    """The losses of samples, averaged or as they are."""
    return loss_N.mean() if reduction == "mean" else loss_N


def mean_square(a: Tensor, b: Tensor, reduction: Reduction) -> Tensor:
    """Mean squared difference over all dimensions, or over all but the first."""
    # a mean of means would round differently from one mean over everything
    return F.mse_loss(a, b) if reduction == "mean" else F.mse_loss(a, b, reduction="none").flatten(1).mean(1)
