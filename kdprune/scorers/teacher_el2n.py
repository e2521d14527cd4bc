"""The error norm of a teacher. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_el2n",
    needs="teacher",
    reads=["error_norm"],
    hard="high",
    labels=True,
    paper="Paul et al. 2021, arXiv 2107.07075",
    cost="one forward pass",
)
def teacher_el2n(error_norm_N: Tensor) -> Tensor:
    """‖p − onehot(y)‖₂ of a teacher that is there anyway.

    A trained teacher is sure of nearly all samples, so it is closer to a search for mislabelled ones than `el2n` is.
    """
    return error_norm_N
