"""The margin of a teacher. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_margin",
    needs="teacher",
    reads=["margin"],
    hard="low",
    labels=True,
    paper="Pleiss et al. 2020, arXiv 2001.10528",
    cost="one forward pass",
)
def teacher_margin(margin_N: Tensor) -> Tensor:
    """z_y − max_{c≠y} z_c of a teacher; low is hard."""
    return margin_N
