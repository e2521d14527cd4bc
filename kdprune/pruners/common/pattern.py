"""Semi-structured sparsity: two of every four weights that follow each other along the input dimension (2:4).

Mishra et al. 2021 (arXiv 2104.08378): so a matrix can be stored as half of its values with two bits each, which sparse
tensor cores multiply.

Shapes: G groups of 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kdprune.data.counter import bits, key
from kdprune.models.prunable import GROUP, holds_groups
from kdprune.pruners.common.keep import Kept

PATTERN = "2:4"
KEPT = 2
SPARSITY = 1 - KEPT / GROUP


def unfit(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights whose input dimension is no multiple of four, so that no pattern fits into them."""
    return [name for name, weight in weights.items() if not holds_groups(weight)]


def kept_of_group(sparsity: float) -> int:
    """How many of four are kept on the way to the pattern: those of the sparsity, rounded up, but no fewer than two."""
    return max(KEPT, math.ceil(GROUP * (1 - sparsity) - 1e-9))


def keep_of_groups(scores: Mapping[str, Tensor], count: int, seed: int, alive: Mapping[str, Tensor]) -> Kept:
    """The `count` highest scores of each group of four, of those that are alive.

    Args:
        scores: of each weight, out × in × …, by tensor; `in` a multiple of four.
        count: 0 to 4.
        seed: of the order of equal scores.
    """
    kept: Kept = {}
    for name, score in scores.items():
        hashes = bits(key(seed, "pattern ties", name), torch.arange(score.numel())).reshape(score.shape)
        order_G4 = grouped(hashes).argsort(1)
        # Stable sorts, from the least important to the most: hash, score, alive.
        for values in (score.detach().cpu().double(), alive[name].cpu()):
            by_last_G4 = grouped(values).gather(1, order_G4)
            order_G4 = order_G4.gather(1, by_last_G4.argsort(dim=1, descending=True, stable=True))
        chosen_G4 = torch.zeros(order_G4.shape, dtype=torch.bool).scatter_(1, order_G4[:, :count], True)
        kept[name] = ungrouped(chosen_G4, score.shape) & alive[name].cpu()
    return kept


def grouped(values: Tensor) -> Tensor:
    """Groups of four along the input dimension, G×4: input channels at one place of a convolution's kernel."""
    return values.movedim(1, -1).reshape(-1, GROUP)


def ungrouped(values_G4: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `grouped`."""
    moved = (shape[0], *shape[2:], shape[1])
    return values_G4.reshape(moved).movedim(-1, 1).contiguous()
