"""The gradient's norm over the last layer. Shapes: N samples, R repeats."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "grand_last_layer",
    needs="gradients",
    reads=["last_layer_gradient_norm"],
    hard="high",
    labels=True,
    paper="Paul et al. 2021, arXiv 2107.07075; Guo et al. 2022 (DeepCore), arXiv 2204.08499",
    cost="R trainings, up to the epoch, and R forward passes",
)
def grand_last_layer(last_layer_gradient_norm_NR: Tensor) -> Tensor:
    """‖p − onehot(y)‖₂ · √(1 + ‖h‖²) with the penultimate features h, averaged over repeats.

    The exact norm of the cross-entropy's gradient for weight and bias of the last layer. It is not `grand`: at
    initialisation their rank correlation is only about 0.5.
    """
    return last_layer_gradient_norm_NR.mean(1)
