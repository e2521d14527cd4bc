"""The entropy of the prediction. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import at_epoch_or_mean
from kdprune.scorers.common.scorer import scorer


@scorer(
    "entropy",
    needs="dynamics",
    reads=["entropy"],
    hard="high",
    labels=False,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="R trainings, up to the epoch",
)
def entropy(entropy_REN: Tensor, epoch: int | str | None = None) -> Tensor:
    """−Σ_c p_c log p_c, in nats, averaged over repeats.

    High is hard, or rather undecided: a sample that is wrong for sure has none. It needs no labels.

    Args:
        epoch: after which one, or "mean" over all that are recorded (default: the last).
    """
    return at_epoch_or_mean(entropy_REN, epoch)
