"""How unsure a teacher is. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_confidence",
    needs="teacher",
    reads=["least_confidence"],
    hard="high",
    labels=False,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="one forward pass",
)
def teacher_confidence(least_confidence_N: Tensor) -> Tensor:
    """1 − max_c p_c of a teacher's prediction: high is hard, and unsure. It needs no labels."""
    return least_confidence_N
