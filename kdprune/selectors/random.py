"""Random selection."""

from __future__ import annotations

import numpy as np

from kdprune.data.counter import key
from kdprune.registry import register
from kdprune.selectors.common.order import first_by_hash
from kdprune.selectors.common.pool import Pool, declare


@register("selectors", "random")
@declare(nested=True)
def random(pool: Pool) -> np.ndarray:
    """Keep the candidates with the smallest hashes of (seed, sample id): a uniformly random choice.

    A hash depends on nothing else, so a smaller count keeps a part of what a larger one keeps.
    """
    return pool.candidates[first_by_hash(key(pool.seed, "subset"), pool.candidates, pool.count)]
