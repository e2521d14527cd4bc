"""Samples whose mean feature follows that of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdprune.geometry.herding import herding as follow_the_mean
from kdprune.registry import register
from kdprune.selectors.common.pool import Pool, candidates_at, declare, features_of, warn_of_cost


def resolve(pool: Pool) -> dict[str, Any]:
    warn_of_cost("herding", pool, pool.count)
    return {}


@register("selectors", "herding")
@declare(needs=["features"], nested=True, resolve=resolve)
def herding(pool: Pool) -> np.ndarray:
    """Keep greedily the sample that brings the mean of the kept ones nearest to the mean of all (Welling 2009).

    Meant for a class at a time, that is with `balanced`: the means are then those of the classes.
    """
    return candidates_at(pool, follow_the_mean(features_of(pool), pool.count, ids=pool.candidates, seed=pool.seed))
