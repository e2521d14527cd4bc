"""Temporal dual-depth scoring. Shapes: N samples, R repeats, E epochs, W windows of J epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.messages import shown
from kdprune.scorers.common.epochs import first_epochs, spread, windows
from kdprune.scorers.common.scorer import scorer


@scorer(
    "tdds",
    needs="dynamics",
    reads=["kl"],
    hard="high",
    labels=False,
    paper="Zhang et al. 2024, arXiv 2311.13613",
    cost="R trainings, up to the epoch",
)
def tdds(kl_REN: Tensor, window: int = 10, decay: float = 0.9, epochs: int | None = None) -> Tensor:
    """How much the steps between successive predictions vary, late windows before all, averaged over repeats.

    With KL_e = Σ_c |p_c^e · log(p_c^e / p_c^(e−1))| and windows k = 0 … T − J, each of J epochs and so of the J − 1
    steps between them, as in the published code:

        Σ_k decay · (1 − decay)^(T − J − k) · ‖KL_j − mean_j KL_j‖₂ , j over the steps of window k

    No labels are needed. With the decay of 0.9 the last window counts ten times as much as the one before it.

    Args:
        window: J. Published T and J were tuned for each prune fraction: long for few pruned, about (90, 10) for 30% of
            CIFAR, short for many, about (10, 5) for 90%.
        decay: in (0, 1).
        epochs: T, looks at the first so many (default: all that are recorded).

    Raises:
        ValueError: more epochs than are recorded, a window of less than 3 or more than T epochs, a decay beyond (0, 1).
    """
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
        raise ValueError(f"decay: {shown(decay)} given, allowed is a number between 0 and 1")
    # The step into a window is no part of it.
    varies_WRN = torch.stack([spread(kl_RJN[:, 1:]) for kl_RJN in windows(first_epochs(kl_REN, epochs), window, 3)])
    age_W = torch.arange(len(varies_WRN) - 1, -1, -1)
    weight_W = decay * (1 - decay) ** age_W.to(varies_WRN)
    return (varies_WRN * weight_W[:, None, None]).sum(0).mean(0)
