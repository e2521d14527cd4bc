"""Samples such that every sample has a kept one nearby."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdprune.geometry.facility_location import METRICS
from kdprune.geometry.facility_location import facility_location as greedy
from kdprune.messages import unknown
from kdprune.registry import register
from kdprune.selectors.common.pool import Pool, candidates_at, declare, features_of, warn_of_cost


def resolve(pool: Pool, metric: Any = "euclidean") -> dict[str, Any]:
    """The metric, checked; a warning where it will take long."""
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    warn_of_cost("facility_location", pool, 2 * len(pool.candidates))
    return {"metric": metric}


@register("selectors", "facility_location")
@declare(needs=["features"], nested=True, resolve=resolve)
def facility_location(pool: Pool, metric: str = "euclidean") -> np.ndarray:
    """Keep greedily the sample that shortens the distances to the nearest kept one most (Mirzasoleiman et al. 2020).

    CRAIG's objective on features, without its weights of samples. Meant for a class at a time, that is with `balanced`.

    Args:
        metric: "euclidean" or "cosine".
    """
    found = greedy(features_of(pool), pool.count, metric=metric, ids=pool.candidates, seed=pool.seed)
    return candidates_at(pool, found.chosen)
