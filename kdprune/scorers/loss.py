"""The cross-entropy of the label. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import at_epoch_or_mean
from kdprune.scorers.common.scorer import scorer


@scorer(
    "loss",
    needs="dynamics",
    reads=["loss"],
    hard="high",
    labels=True,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="R trainings, up to the epoch",
)
def loss(loss_REN: Tensor, epoch: int | str | None = None) -> Tensor:
    """−log p_y, in nats, averaged over repeats.

    High is hard. Unlike `el2n` it has no largest value, so that a few mislabelled samples dominate a mean.

    Args:
        epoch: after which one, or "mean" over all that are recorded (default: the last).
    """
    return at_epoch_or_mean(loss_REN, epoch)
