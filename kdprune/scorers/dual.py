"""Difficulty and uncertainty. Shapes: N samples, R repeats, E epochs, W windows of J epochs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdprune.scorers.common.epochs import first_epochs, spread, windows
from kdprune.scorers.common.scorer import scorer


@scorer(
    "dual",
    needs="dynamics",
    reads=["label_probability"],
    hard="high",
    labels=True,
    paper="Cho et al. 2025, arXiv 2502.06905",
    cost="R trainings of 30 epochs",
)
def dual(label_probability_REN: Tensor, window: int = 10, epochs: int | None = None) -> dict[str, Tensor]:
    """Mean over windows of (1 − mean p_y) · std p_y inside, averaged over repeats.

    The deviation divides by J − 1, as in the published code (times 10 there, which changes no rank). A second column,
    `mean_probability`, is the mean of p_y over the epochs that were looked at, which Beta sampling needs.

    Args:
        window: J, in epochs.
        epochs: T, looks at the first so many (default: 30, as published for CIFAR, or all where fewer are recorded;
            60 for ImageNet).

    Raises:
        ValueError: more epochs than are recorded, or a window that does not fit into them.
    """
    p_REN = first_epochs(label_probability_REN, epochs, usual=30)
    both_WRN = torch.stack([spread(p_RJN) * (1 - p_RJN.mean(1)) for p_RJN in windows(p_REN, window)])
    score_N = both_WRN.mean((0, 1)) / math.sqrt(window - 1)
    return {"score": score_N, "mean_probability": p_REN.mean((0, 1))}
