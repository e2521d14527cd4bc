"""D² pruning: difficulty and diversity by messages over a graph of nearest neighbours.

Shapes: N samples, K neighbours.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.geometry.rows import as_ids, check_count, check_length, rank


def spread(score_N: Tensor, index_NK: Tensor, squared_NK: Tensor, gamma: float = 1.0) -> Tensor:
    """Forward messages: s_i + Σ_{j ∈ kNN(i)} exp(−γ_f·d_ij²)·s_j, float64 N (Maharana et al. 2024, section 3.2).

    The kernel is the Gaussian one of the squared Euclidean distance, on features as they are. The published code has
    exp(−d) of the plain distance, and no γ_f, for images and texts, and of faiss' squared distance for DataComp: pass
    `squared_NK.sqrt()` for the former. Neighbours count in one direction, i's own list, as in that code's graphs from
    precomputed neighbours; a neighbour of −1 sends nothing.

    Raises:
        ValueError: scores are not one for each row, or not finite; γ is negative.
    """
    score_N = _scores(score_N, index_NK, gamma).to(index_NK.device)
    return score_N + (_weights(index_NK, squared_NK, gamma) * score_N[index_NK]).sum(1)


def d2_select(
    spread_N: Tensor, index_NK: Tensor, squared_NK: Tensor, count: int, *, gamma: float = 1.0, ids: Any = None,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Positions chosen greedily by the largest score, int64 `count`; each lowers its neighbours' scores.

    Reverse messages: once i is chosen, s_j −= exp(−γ_r·d_ij²)·s_i for each j of its list (section 3.3), with s_i as it
    was when i was chosen. A chosen row of negative score raises its neighbours, as in the published code. A heap with
    stale entries takes O((N + count·K)·log N) instead of O(N·count).

    Args:
        spread_N: scores after forward messages.
        index_NK: neighbours of each row, −1 for none.
        squared_NK: squared distances to them (as for `spread`, their roots for the published code's kernel).
        count: how many to choose.
        gamma: γ_r.
        ids: sample id of each row, for ties.
        seed: of the order among rows of equal score.

    Raises:
        ValueError: count is not in [1, N], scores are not one for each row or not finite, γ is negative.
    """
    score_N = _scores(spread_N, index_NK, gamma)
    check_count("count", count, len(score_N))
    place = rank(as_ids(ids, len(score_N), torch.device("cpu")), seed, "d2").tolist()
    neighbour_NK = index_NK.cpu().numpy()
    discount_NK = _weights(index_NK, squared_NK, gamma).cpu().numpy()
    # Python's numbers, for a heap of numpy's is five times slower.
    score = score_N.tolist()
    heap = [(-s, r, i) for i, (s, r) in enumerate(zip(score, place, strict=True))]
    heapq.heapify(heap)
    chosen: list[int] = []
    free = np.ones(len(score), dtype=bool)
    while len(chosen) < count:
        negative, _, i = heapq.heappop(heap)
        if not free[i] or -negative != score[i]:
            continue  # an entry of an older score
        chosen.append(i)
        free[i] = False
        for j, weight in zip(neighbour_NK[i].tolist(), discount_NK[i].tolist(), strict=True):
            if j >= 0 and free[j] and weight:
                score[j] -= weight * score[i]
                heapq.heappush(heap, (-score[j], place[j], j))
    return torch.tensor(chosen, dtype=torch.int64, device=index_NK.device)


def _weights(index_NK: Tensor, squared_NK: Tensor, gamma: float) -> Tensor:
    return torch.where(index_NK >= 0, torch.exp(-gamma * squared_NK.double()), 0.0)


def _scores(score_N: Tensor, index_NK: Tensor, gamma: float) -> Tensor:
    check_length("scores", score_N, len(index_NK))
    score_N = torch.as_tensor(score_N).double()
    if not score_N.isfinite().all():
        raise ValueError(f"scores: row {int((~score_N.isfinite()).nonzero()[0])} has one that is not finite")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma: {gamma} given, allowed is [0, ∞)")
    return score_N
