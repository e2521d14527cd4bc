"""The area under the margin. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.epochs import first_epochs
from kdprune.scorers.common.scorer import scorer


@scorer(
    "aum",
    needs="dynamics",
    reads=["margin"],
    hard="low",
    labels=True,
    paper="Pleiss et al. 2020, arXiv 2001.10528",
    cost="R trainings, up to the epoch",
)
def aum(margin_REN: Tensor, epochs: int | None = None) -> Tensor:
    """Mean over epochs of the margin z_y − max_{c≠y} z_c of the logits (eq. 2), averaged over repeats.

    Low is hard: mislabelled samples are at the bottom. Published with the margin as it is while a sample is trained on
    (record the training view), up to the first drop of the learning rate.

    Args:
        epochs: the mean is over the first so many (default: all that are recorded).
    """
    return first_epochs(margin_REN, epochs).mean((0, 1))
