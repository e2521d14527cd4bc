"""The cross-entropy of a teacher. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_loss",
    needs="teacher",
    reads=["loss"],
    hard="high",
    labels=True,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="one forward pass",
)
def teacher_loss(loss_N: Tensor) -> Tensor:
    """−log p_y of a teacher, in nats."""
    return loss_N
