"""Herding: rows whose running mean follows the mean of all.

Shapes: N rows, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.rows import Rows, as_ids, block, check, check_count, device_of, lowest_rank, rank, rounding


def herding(
    features: Rows, count: int, *, target_D: Tensor | None = None, ids: Any = None, seed: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """Positions of the chosen rows in the order of their choice, int64 `count` (Welling 2009).

    With S the sum of the t rows chosen so far, the next one is argmin_i ‖μ − (S + h_i)/(t + 1)‖. About the mean, that
    is with g_i = h_i − μ and G = Σ g of the chosen ones, it is argmin_i ‖g_i‖² + 2 g_i·G, one product with a vector for
    each choice: O(N·D) time, O(N) memory beside the features. Meant for a class at a time. (DeepCore's code takes the
    argmax, which keeps the rows that pull the mean away.)

    Args:
        features: N×D.
        count: how many to choose.
        target_D: μ; the mean of the features by default.
        ids: sample id of each row, for ties.
        seed: of the order among rows that tie.
        device: where to compute; where the features lie, by default.

    Raises:
        ValueError: count is not in [1, N], a row is not finite, ids are not one for each row.
    """
    n, _ = check(features)
    check_count("count", count, n)
    where = device_of(features, device)
    h_ND = block(features, (0, n), where)
    mean_D = h_ND.mean(0, dtype=torch.float64) if target_D is None else target_D.to(where, torch.float64)
    g_ND = h_ND - mean_D.to(h_ND.dtype)
    squares_N = torch.linalg.vecdot(g_ND, g_ND)
    free_N, rank_N = torch.zeros_like(squares_N), rank(as_ids(ids, n, where), seed, "herding")
    chosen = torch.empty(count, dtype=torch.int64, device=where)
    sum_D = torch.zeros_like(mean_D)
    longest = squares_N.max().sqrt()
    for t in range(count):
        value_N = torch.addmv(squares_N + free_N, g_ND, sum_D.to(g_ND.dtype), alpha=2)
        band = rounding(g_ND.dtype) * longest * (longest + 2 * torch.linalg.vector_norm(sum_D))
        i = lowest_rank(value_N <= value_N.min() + band, rank_N)
        chosen[t] = i
        free_N[i] = torch.inf
        sum_D += g_ND[i]
    return chosen
