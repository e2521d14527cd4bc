"""What the largest probability leaves to the others. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import at_epoch_or_mean
from kdprune.scorers.common.scorer import scorer


@scorer(
    "least_confidence",
    needs="dynamics",
    reads=["least_confidence"],
    hard="high",
    labels=False,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="R trainings, up to the epoch",
)
def least_confidence(least_confidence_REN: Tensor, epoch: int | str | None = None) -> Tensor:
    """1 − max_c p_c, averaged over repeats.

    High is hard. It is of the probabilities, never of raw logits, and is recorded as the sum of the others, so that
    float16 tells 0.9999 from 1. It needs no labels.

    Args:
        epoch: after which one, or "mean" over all that are recorded (default: the last).
    """
    return at_epoch_or_mean(least_confidence_REN, epoch)
