"""The error norm early in training. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import at_epoch
from kdprune.scorers.common.scorer import scorer


@scorer(
    "el2n",
    needs="dynamics",
    reads=["error_norm"],
    hard="high",
    labels=True,
    paper="Paul et al. 2021, arXiv 2107.07075",
    cost="R trainings, up to the epoch",
)
def el2n(error_norm_REN: Tensor, epoch: int | None = None) -> Tensor:
    """‖p − onehot(y)‖₂ at one epoch, averaged over repeats (eq. 3; there epochs 10–20 of 200, and 10 repeats)."""
    return at_epoch(error_norm_REN, epoch).mean(0)
