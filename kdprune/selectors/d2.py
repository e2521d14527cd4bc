"""Difficult samples that are not neighbours. Shapes: M candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kdprune.geometry.d2 import d2_select, spread
from kdprune.geometry.neighbours import neighbours as nearest
from kdprune.messages import shown
from kdprune.registry import register
from kdprune.selectors.common.arguments import check_number, check_whole
from kdprune.selectors.common.pool import Pool, candidates_at, declare, features_of, scores_of, warn_of_cost


def resolve(
    pool: Pool, neighbours: Any = 10, gamma: Any = 1.0, spread_gamma: Any = 1.0, normalise: Any = True
) -> dict[str, Any]:
    """The arguments, checked; a warning where the graph will take long."""
    check_whole("d2(neighbours=…)", neighbours, 1)
    for name, value in (("gamma", gamma), ("spread_gamma", spread_gamma)):
        check_number(f"d2({name}=…)", value, 0, np.inf, "[)")
    if not isinstance(normalise, bool):
        raise ValueError(f"d2(normalise=…): {shown(normalise)} given, allowed are True and False")
    warn_of_cost("d2", pool, len(pool.candidates))
    return {"neighbours": neighbours, "gamma": gamma, "spread_gamma": spread_gamma, "normalise": normalise}


@register("selectors", "d2")
@declare(needs=["scores", "features"], nested=True, resolve=resolve)
def d2(
    pool: Pool, neighbours: int = 10, gamma: float = 1.0, spread_gamma: float = 1.0, normalise: bool = True
) -> np.ndarray:
    """Spread difficulty over a graph of neighbours, then keep the hardest, each of which lowers its neighbours.

    Maharana et al. 2024 (arXiv 2310.07931, §3). Messages are weighted by exp(−γ·d) with the Euclidean distance d, as in
    the published code; scores count from the lowest one,
    for a negative message would mean nothing, and infinite ones count as the largest or lowest finite score.

    Args:
        neighbours: of each sample in the graph.
        gamma: γ of the messages by which a kept sample lowers its neighbours.
        spread_gamma: γ of the messages by which difficulty is spread at first.
        normalise: features have length 1. As they are, as published, distances are often so large that no message
            arrives, and the hardest are kept.
    """
    scores = torch.from_numpy(from_the_lowest(pool))
    if len(scores) == 1:
        return pool.candidates.copy()
    features = torch.as_tensor(features_of(pool)).float()
    if normalise:
        features = torch.nn.functional.normalize(features, dim=1)
    graph = nearest(features, min(neighbours, len(scores) - 1), ids=pool.candidates, seed=pool.seed)
    distance_NK = graph.squared_NK.sqrt()
    spread_M = spread(scores, graph.index_NK, distance_NK, spread_gamma)
    chosen = d2_select(
        spread_M, graph.index_NK, distance_NK, pool.count, gamma=gamma, ids=pool.candidates, seed=pool.seed
    )
    return candidates_at(pool, chosen)


def from_the_lowest(pool: Pool) -> np.ndarray:
    """Finite difficulties of the candidates, float64 M; below 0 is none, and the zero is the same for all classes."""
    assert pool.scores is not None
    finite = pool.scores[np.isfinite(pool.scores)].astype(np.float64)
    low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    if low > high:  # nothing is finite
        low, high = 0.0, 1.0
    return np.clip(scores_of(pool).astype(np.float64), low, high) - min(low, 0.0)
