"""The margin of the logits. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import at_epoch_or_mean
from kdprune.scorers.common.scorer import scorer


@scorer(
    "margin",
    needs="dynamics",
    reads=["margin"],
    hard="low",
    labels=True,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="R trainings, up to the epoch",
)
def margin(margin_REN: Tensor, epoch: int | str | None = None) -> Tensor:
    """z_y − max_{c≠y} z_c, averaged over repeats.

    Low is hard; below 0 the prediction is wrong. `aum` is its mean over the epochs.

    Args:
        epoch: after which one, or "mean" over all that are recorded (default: the last).
    """
    return at_epoch_or_mean(margin_REN, epoch)
