"""Random selection."""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import bits, key
from kdprune.registry import register
from kdprune.selectors.common.pool import Pool, declare


@register("selectors", "random")
@declare(nested=True)
def random(pool: Pool) -> np.ndarray:
    """Keep the candidates with the smallest hashes of (seed, sample id): a uniformly random choice.

    A hash depends on nothing else, so a smaller count keeps a part of what a larger one keeps.
    """
    hashes_M = bits(key(pool.seed, "subset"), torch.from_numpy(pool.candidates)).numpy()
    # The hash is a bijection of the id, so no two are equal; a partition is linear where sorting is not.
    largest_kept = np.partition(hashes_M, pool.count - 1)[pool.count - 1]
    return pool.candidates[hashes_M <= largest_kept]
