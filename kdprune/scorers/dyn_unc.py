"""Dynamic uncertainty. Shapes: N samples, R repeats, E epochs, W windows of J epochs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdprune.scorers.common.epochs import spread, windows
from kdprune.scorers.common.scorer import scorer


@scorer(
    "dyn_unc",
    needs="dynamics",
    reads=["label_probability"],
    hard="high",
    labels=True,
    paper="He et al. 2024, arXiv 2306.05175",
    cost="R whole trainings",
)
def dyn_unc(label_probability_REN: Tensor, window: int = 10) -> Tensor:
    """Mean over sliding windows of the standard deviation of p_y inside, averaged over repeats.

    The deviation divides by J − 1, as in the published code (times 10 there, which changes no rank). That code leaves
    out the window that ends with the last epoch; here all of them count.

    Args:
        window: J, in epochs; 10 as published, of 90 epochs and more.

    Raises:
        ValueError: fewer than 2 epochs, or more than are recorded.
    """
    spread_WRN = torch.stack([spread(p_RJN) for p_RJN in windows(label_probability_REN, window)])
    return spread_WRN.mean((0, 1)) / math.sqrt(window - 1)
