"""Sanity checks of a mask: what is left of its merit without its pattern, or without what it prefers.

Frankle et al. 2021 (arXiv 2009.08576, §5) and Su et al. 2020 (arXiv 2009.11094).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdprune.pruners.common.draws import random_ranks
from kdprune.pruners.common.keep import Kept


def shuffled(kept: Mapping[str, Tensor], seed: int) -> Kept:
    """The bits of each tensor in a random order: as many are kept in each layer, other ones."""
    return {
        name: one.reshape(-1)[random_ranks(one, f"shuffle {name}", seed).reshape(-1)].reshape(one.shape)
        for name, one in kept.items()
    }


def inverted(kept: Mapping[str, Tensor]) -> Kept:
    """What the mask prunes is kept, and what it keeps is pruned."""
    return {name: ~one for name, one in kept.items()}
