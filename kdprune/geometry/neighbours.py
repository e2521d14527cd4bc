"""Nearest neighbours of every row: exactly, or among the rows of nearby clusters.

Shapes: N rows, Q queries, R references of a block, K neighbours, D features, C clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.rows import (
    BLOCK,
    Mapper,
    Rows,
    as_ids,
    block,
    check,
    check_count,
    check_length,
    device_of,
    gather,
    rank,
    spans,
)  # fmt: skip

QUERIES = 4096  # rows; with a block of references their products take 256 MiB
SPARE = 8  # candidates beyond k, so that rounding and ties are settled by true distances


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of each row, the nearest first, never the row itself.

    Attributes:
        index_NK: their positions, int64; −1 where the clusters searched hold fewer than k others.
        squared_NK: squared Euclidean distances; infinite there.
    """

    index_NK: Tensor
    squared_NK: Tensor


def neighbours(
    rows: Rows, k: int, *, ids: Any = None, seed: int = 0, block_size: int = BLOCK,
    device: torch.device | str | None = None, mapper: Mapper = map,
) -> Neighbours:  # fmt: skip
    """The k nearest other rows of each row, in O(N²·D) time and O(N·k) memory.

    Candidates come from products in blocks, k and a few more of them; their order is that of the distances computed
    from differences. Equal distances are in a seeded order; of more than k + 8 copies of a row, its neighbours are any.

    Args:
        rows: features, N×D.
        k: how many neighbours.
        ids: sample id of each row, for ties.
        seed: of the order among neighbours at equal distances.
        block_size: references at a time.
        device: where to compute; where the features lie, by default.
        mapper: `map`, or an executor's, that gives the results in order.

    Raises:
        ValueError: k is not in [1, N − 1], a row is not finite, ids are not one for each row.
    """
    n, _ = check(rows)
    check_count("k", k, n - 1)
    where = device_of(rows, device)
    rank_N = rank(as_ids(ids, n, where), seed, "neighbours")
    step = partial(_of_queries, rows, k=k, rank_N=rank_N, block_size=block_size, device=where)
    return Neighbours(*map(torch.cat, zip(*mapper(step, spans(n, QUERIES)), strict=True)))


def neighbours_in_clusters(
    rows: Rows, k: int, cluster_N: Any, centroids_CD: Tensor, *, probes: int = 1, ids: Any = None, seed: int = 0,
    device: torch.device | str | None = None, mapper: Mapper = map,
) -> Neighbours:  # fmt: skip
    """The k nearest other rows in the own cluster and in those nearest to it, cluster by cluster.

    An inverted file (Sivic & Zisserman 2003) whose rows are all queries: a cluster's rows are compared with those of
    the `probes` clusters whose centroids are nearest to its own. With as many probes as clusters it is exact; time is
    O(N·D·probes·N/C). Clusters are gathered one by one, so rows that can only be sliced are read once for each; only
    those looked into for one cluster are in memory, for each worker.

    Args:
        rows: features, N×D.
        k: how many neighbours.
        cluster_N: cluster of each row, in [0, C).
        centroids_CD: of the clusters.
        probes: clusters to look into, the own one included.
        ids: sample id of each row, for ties.
        seed: of the order among neighbours at equal distances.
        device: where to compute; where the features lie, by default.
        mapper: `map`, or an executor's, that gives the results in order.

    Raises:
        ValueError: k is not in [1, N − 1], probes not in [1, C], a row is not finite, or clusters or ids are not one
            for each row.
    """
    n, _ = check(rows)
    check_count("k", k, n - 1)
    check_count("probes", probes, len(centroids_CD))
    check_length("cluster_N", cluster_N, n)
    where = device_of(rows, device)
    cluster_N, centroids_CD = torch.as_tensor(cluster_N).to(where), centroids_CD.to(where)
    rank_N = rank(as_ids(ids, n, where), seed, "neighbours")
    sizes_C = torch.bincount(cluster_N, minlength=len(centroids_CD))
    members = torch.argsort(cluster_N, stable=True).split(sizes_C.tolist())
    nearby = neighbours(centroids_CD, probes - 1).index_NK.tolist() if probes > 1 else [[]] * len(sizes_C)
    index_NK = torch.full((n, k), -1, device=where)
    squared_NK = torch.full((n, k), torch.inf, dtype=block(rows, (0, 1), where).dtype, device=where)
    clusters = sizes_C.nonzero().flatten().tolist()

    def searched() -> Iterator[Tensor]:
        return (torch.cat([members[c] for c in [cluster, *nearby[cluster]]]) for cluster in clusters)

    step = partial(_of_cluster, rows, k=k, device=where)
    found = mapper(step, searched(), (rank_N[near_R] for near_R in searched()), (len(members[c]) for c in clusters))
    for cluster, (index_QK, squared_QK) in zip(clusters, found, strict=True):
        index_NK[members[cluster]], squared_NK[members[cluster]] = index_QK, squared_QK
    return Neighbours(index_NK, squared_NK)


def _of_queries(
    rows: Rows, span: tuple[int, int], *, k: int, rank_N: Tensor, block_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The neighbours of a block among all rows."""
    n, own_Q = len(rows), torch.arange(*span, device=device)
    found = _Nearest(block(rows, span, device), own_Q, min(k + SPARE, n - 1))
    for other in spans(n, block_size):
        found.look_at(block(rows, other, device), torch.arange(*other, device=device))
    return _settled(found, rows, k, rank_N)


def _of_cluster(
    rows: Rows, near_R: Tensor, rank_R: Tensor, members: int, *, k: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The neighbours of a cluster's members, the first ones of the rows that are looked into."""
    y_RD, places_R = gather(rows, near_R, device), torch.arange(len(near_R), device=device)
    parts = []
    for first, last in spans(members, QUERIES):
        found = _Nearest(y_RD[first:last], places_R[first:last], min(k + SPARE, len(near_R)))
        for span in spans(len(near_R), BLOCK):
            found.look_at(y_RD[slice(*span)], places_R[slice(*span)])
        place_QK, squared_QK = _settled(found, y_RD, k, rank_R)
        parts.append((torch.where(place_QK < 0, -1, near_R[place_QK]), squared_QK))
    index_MK, squared_MK = map(torch.cat, zip(*parts, strict=True))
    return index_MK, squared_MK


class _Nearest:
    """The nearest references so far of some queries."""

    def __init__(self, x_QD: Tensor, own_Q: Tensor, k: int) -> None:
        self.x_QD, self.own_Q, self.k = x_QD, own_Q, k
        self.shift_D = x_QD.mean(0)
        self.c_QD = x_QD - self.shift_D
        self.value_QK = x_QD.new_empty(len(x_QD), 0)  # ‖y‖² − 2x·y: in the order of the distances
        self.index_QK = own_Q.new_empty(len(x_QD), 0)

    def look_at(self, y_RD: Tensor, index_R: Tensor) -> None:
        y_RD = y_RD - self.shift_D
        value_QR = torch.addmm(torch.linalg.vecdot(y_RD, y_RD), self.c_QD, y_RD.T, alpha=-2)
        value_QR.masked_fill_(self.own_Q[:, None] == index_R, torch.inf)
        value_QR, column = value_QR.topk(min(self.k, len(y_RD)), largest=False)
        value_QR, index_QR = torch.cat([self.value_QK, value_QR], 1), torch.cat([self.index_QK, index_R[column]], 1)
        self.value_QK, best = value_QR.topk(min(self.k, value_QR.shape[1]), largest=False)
        self.index_QK = index_QR.gather(1, best)


def _settled(found: _Nearest, rows: Rows, k: int, rank_N: Tensor) -> tuple[Tensor, Tensor]:
    """The k nearest of the candidates by distances from differences, ties by rank; −1 where there are fewer."""
    index_QK, shape = found.index_QK, found.index_QK.shape
    needed, place = index_QK.flatten().unique(return_inverse=True)
    squared = found.x_QD.new_empty(shape)
    y_MD, place_QK = gather(rows, needed, index_QK.device), place.view(shape)
    for column in range(shape[1]):  # a column at a time, for Q×K×D would not fit
        difference_QD = found.x_QD - y_MD[place_QK[:, column]]
        squared[:, column] = torch.linalg.vecdot(difference_QD, difference_QD)
    squared.masked_fill_(found.value_QK == torch.inf, torch.inf)
    order = rank_N[index_QK].argsort(1)
    order = order.gather(1, squared.gather(1, order).argsort(dim=1, stable=True))[:, :k]
    index, squared = index_QK.gather(1, order), squared.gather(1, order)
    index = torch.where(squared.isfinite(), index, -1)
    short = k - index.shape[1]
    return (torch.nn.functional.pad(index, (0, short), value=-1),
            torch.nn.functional.pad(squared, (0, short), value=torch.inf))  # fmt: skip
