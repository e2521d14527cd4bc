"""The gradient's norm over all parameters. Shapes: N samples, R repeats."""

from __future__ import annotations

from torch import Tensor

from kdprune.scorers.common.scorer import scorer


@scorer(
    "grand",
    needs="gradients",
    reads=["gradient_norm"],
    hard="high",
    labels=True,
    paper="Paul et al. 2021, arXiv 2107.07075",
    cost="R trainings, up to the epoch, and R forward and backward passes",
)
def grand(gradient_norm_NR: Tensor) -> Tensor:
    """‖∇_θ CE(f_θ(x), y)‖₂ over all parameters θ, averaged over repeats (definition 2.1).

    Published with at least 10 repeats, in evaluation mode without augmentation, after 20 of 200 epochs.

    **At initialisation it does not work**: networks that nobody trained order CIFAR-10 nearly by the norm of the input,
    and keeping the highest is worse than random. The original result came from a checkpoint that was restored by
    mistake (Kirsch 2023, arXiv 2303.14753). Record gradients after a few epochs.
    """
    return gradient_norm_NR.mean(1)
