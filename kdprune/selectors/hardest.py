"""The samples with the highest difficulty."""

from __future__ import annotations

import numpy as np

from kdprune.registry import register
from kdprune.selectors.common.order import highest
from kdprune.selectors.common.pool import Pool, declare, scores_of


@register("selectors", "hardest")
@declare(needs=["scores"], nested=True)
def hardest(pool: Pool) -> np.ndarray:
    """Keep the hardest samples (Paul et al. 2021; Toneva et al. 2019)."""
    return pool.candidates[highest(scores_of(pool), pool.count, pool.candidates, pool.seed)]
