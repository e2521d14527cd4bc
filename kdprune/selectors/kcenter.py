"""Samples that leave none far from a kept one."""

from __future__ import annotations

import numpy as np

from kdprune.geometry.kcenter import kcenter as farthest_first
from kdprune.registry import register
from kdprune.selectors.common.pool import Pool, candidates_at, declare, features_of


@register("selectors", "kcenter")
@declare(needs=["features"], nested=True)
def kcenter(pool: Pool) -> np.ndarray:
    """Keep greedily the sample farthest from all that are kept (Sener & Savarese 2018, algorithm 1)."""
    found = farthest_first(features_of(pool), pool.count, ids=pool.candidates, seed=pool.seed)
    return candidates_at(pool, found.chosen)
