"""Facility location: rows such that every row has a chosen one nearby, each with the number of rows it stands for.

Shapes: N rows, B columns of a block, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.rows import (
    Rows,
    as_ids,
    block,
    check,
    check_count,
    device_of,
    lowest_rank,
    rank,
    spans,
    unit,
)  # fmt: skip
from kdprune.messages import unknown

METRICS = ("euclidean", "cosine")
TILE = 4096  # rows and columns of distances at a time; in float64 they take 128 MiB
BATCH = 64  # candidates whose gains are brought up to date together
ROUNDING = 1e-12  # of squared distances, as a share of the largest squared norm


@dataclass(frozen=True)
class FacilityLocation:
    """Chosen rows in the order of their choice.

    Attributes:
        chosen: their positions, int64 `count`.
        weight: how many rows are nearest to each, int64 `count`, in sum N: CRAIG's γ, the weight in the loss.
        cost: Σ_i of the distance to the nearest chosen row, after each choice, float64 `count`.
    """

    chosen: Tensor
    weight: Tensor
    cost: Tensor


def facility_location(
    features: Rows, count: int, *, metric: str = "euclidean", ids: Any = None, seed: int = 0,
    device: torch.device | str | None = None,
) -> FacilityLocation:  # fmt: skip
    """Greedy maximum of F(S) = Σ_i max_{j ∈ S} (L₀ − d_ij), lazily (Mirzasoleiman et al. 2020, CRAIG, algorithm 1).

    The similarity is L₀ − d with L₀ at least the largest distance, as in the paper's code: d is Euclidean, or 1 − cos.
    L₀ itself is never needed: the first choice is argmin_j Σ_i d_ij whatever it is, and from then on the gain of j is
    Σ_i max(0, m_i − d_ij), with m_i the distance to the nearest chosen row. As gains only fall, old ones are upper
    bounds (Minoux 1978), and the largest are brought up to date, 64 at a time, until none that is stale could win.

    Distances are made in blocks, twice all of them at the start, O(N²·D) time, and then forgotten: O(N·64) memory
    beside the features, which become float64. For sets of the size of a class.

    Args:
        features: N×D.
        count: how many to choose.
        metric: "euclidean" or "cosine".
        ids: sample id of each row, for ties.
        seed: of the order among rows of equal gain.
        device: where to compute; where the features lie, by default.

    Raises:
        ValueError: count is not in [1, N], an unknown metric, a row is not finite, ids are not one for each row.
    """
    n, _ = check(features)
    check_count("count", count, n)
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    where = device_of(features, device)
    distances = _Distances(block(features, (0, n), where).double(), metric)
    rank_N = rank(as_ids(ids, n, where), seed, "facility location")
    near_N, medoid_N = torch.full((n,), torch.inf, dtype=torch.float64, device=where), torch.zeros_like(rank_N)
    bound_N, stale_N = torch.full_like(near_N, torch.inf), torch.ones(n, dtype=torch.bool, device=where)
    chosen, cost = torch.zeros(count, dtype=torch.int64, device=where), near_N.new_zeros(count)
    for t in range(count):
        if t == 0:
            bound_N = torch.cat([-distances.sums(torch.arange(*s, device=where)) for s in spans(n, TILE)])
        else:
            _refresh(distances, near_N, bound_N, stale_N, n if t == 1 else BATCH)
        i = lowest_rank(bound_N >= bound_N.max() - distances.band, rank_N)
        distance_N = distances.columns(i[None])[:, 0]
        medoid_N = torch.where(distance_N < near_N, t, medoid_N)
        near_N = torch.minimum(near_N, distance_N)
        chosen[t], cost[t] = i, near_N.sum()
        if t == 0:
            bound_N = torch.full_like(bound_N, torch.inf)
            bound_N[chosen[0]] = -torch.inf
        bound_N[i], stale_N[:] = -torch.inf, True
    return FacilityLocation(chosen, torch.bincount(medoid_N, minlength=count), cost)


def _refresh(distances: _Distances, near_N: Tensor, bound_N: Tensor, stale_N: Tensor, batch: int) -> None:
    """Bring bounds up to date until none that is stale is within rounding of the largest."""
    while True:
        bound, index = bound_N.topk(min(batch, len(bound_N)))
        index = index[stale_N[index] & (bound >= bound_N.masked_fill(stale_N, -torch.inf).max() - distances.band)]
        index = index[bound_N[index] > -torch.inf]
        if not len(index):
            return
        for part in index.split(TILE):
            bound_N[part] = distances.gains(part, near_N)
        stale_N[index] = False


class _Distances:
    """Columns of the N×N distances, made whenever they are asked for."""

    def __init__(self, x_ND: Tensor, metric: str) -> None:
        self.cosine = metric == "cosine"
        self.x_ND = unit(x_ND) if self.cosine else x_ND - x_ND.mean(0)
        self.squares_N = torch.linalg.vecdot(self.x_ND, self.x_ND)
        self.nil = ROUNDING * self.squares_N.max()
        # A distance above √nil is wrong by at most √nil·10⁻⁴, as doubles are by 10⁻¹⁶, and one below it is zero.
        self.band = 1e-4 * self.nil.sqrt() * len(x_ND)

    def columns(self, index_B: Tensor, rows: slice = slice(None)) -> Tensor:
        x_ND, y_BD = self.x_ND[rows], self.x_ND[index_B]
        if self.cosine:
            distance = 1 - x_ND @ y_BD.T
            return torch.where(distance > self.nil, distance, 0.0)
        squared = torch.addmm(self.squares_N[index_B], x_ND, y_BD.T, alpha=-2) + self.squares_N[rows, None]
        return torch.where(squared > self.nil, squared, 0.0).sqrt_()

    def sums(self, index_B: Tensor) -> Tensor:
        """Σ_i d_ij of each column."""
        return torch.stack([self.columns(index_B, slice(*s)).sum(0) for s in spans(len(self.x_ND), TILE)]).sum(0)

    def gains(self, index_B: Tensor, near_N: Tensor) -> Tensor:
        """Σ_i max(0, m_i − d_ij) of each column."""
        parts = [
            (near_N[slice(*s), None] - self.columns(index_B, slice(*s))).clamp_(min=0).sum(0)
            for s in spans(len(self.x_ND), TILE)
        ]
        return torch.stack(parts).sum(0)
