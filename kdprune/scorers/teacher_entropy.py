"""The entropy of a teacher. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_entropy",
    needs="teacher",
    reads=["entropy"],
    hard="high",
    labels=False,
    paper="Coleman et al. 2020, arXiv 1906.11829",
    cost="one forward pass",
)
def teacher_entropy(entropy_N: Tensor) -> Tensor:
    """−Σ_c p_c log p_c of a teacher's prediction, in nats; it needs no labels."""
    return entropy_N
