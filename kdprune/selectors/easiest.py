"""The samples with the lowest difficulty."""

from __future__ import annotations

import numpy as np

from kdprune.registry import register
from kdprune.selectors.common.order import lowest
from kdprune.selectors.common.pool import Pool, declare, scores_of


@register("selectors", "easiest")
@declare(needs=["scores"], nested=True)
def easiest(pool: Pool) -> np.ndarray:
    """Keep the easiest samples (Sorscher et al. 2022, for scarce data)."""
    return pool.candidates[lowest(scores_of(pool), pool.count, pool.candidates, pool.seed)]
