"""The gradient's norm of a teacher's last layer. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_grand_last_layer",
    needs="teacher",
    reads=["last_layer_gradient_norm"],
    hard="high",
    labels=True,
    paper="Paul et al. 2021, arXiv 2107.07075",
    cost="one forward pass",
)
def teacher_grand_last_layer(last_layer_gradient_norm_N: Tensor) -> Tensor:
    """‖p − onehot(y)‖₂ · √(1 + ‖h‖²) of a teacher with penultimate features h (see `grand_last_layer`)."""
    return last_layer_gradient_norm_N
