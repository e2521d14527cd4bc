"""SemDeDup: how similar each sample is to one that comes before it in its cluster.

Shapes: N samples, M members of a cluster, B rows of a block, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.rows import Mapper, Rows, as_ids, check, check_length, device_of, gather, rank, spans, unit

BLOCK_OF_CLUSTER = 4096  # rows; their similarities take 64 MiB
AT_ONCE = 2**14  # rows of small clusters that are read together


def semdedup(
    rows: Rows, cluster_N: Any, distance_N: Any, *, ids: Any = None, seed: int = 0,
    block_size: int = BLOCK_OF_CLUSTER, device: torch.device | str | None = None, mapper: Mapper = map,
) -> Tensor:  # fmt: skip
    """Largest cosine with an earlier member of the own cluster, N; −1 for the first (Abbas et al. 2023, algorithm 1).

    Members are ordered by their distance to the centroid, the farthest first, as by `keep_hard` and `which_to_keep:
    hard` in the published code, its defaults (`-distance_N` makes it "easy"). Rows of equal distance are in a seeded
    order. SemDeDup keeps what has a score of at most 1 − ε; a row is compared with all earlier ones, also with those
    that are dropped themselves. Of exact duplicates all but the first score 1. (The published code's lowest score is 0,
    not −1, which no useful ε sees.)

    A cluster is in memory at a time, or several small ones, for each worker; similarities are made in blocks.

    Args:
        rows: features, N×D, of any length.
        cluster_N: cluster of each row, as of spherical k-means.
        distance_N: of each row to its centroid.
        ids: sample id of each row, for ties.
        seed: of the order among rows of equal distance.
        block_size: rows and columns of similarities at a time.
        device: where to compute; where the features lie, by default.
        mapper: `map`, or an executor's, that gives the results in order.

    Raises:
        ValueError: a row or distance is not finite, or one of the others is not one for each row.
    """
    n, _ = check(rows)
    for name, given in (("cluster_N", cluster_N), ("distance_N", distance_N)):
        check_length(name, given, n)
    where = device_of(rows, device)
    cluster_N, distance_N = (torch.as_tensor(t).to(where) for t in (cluster_N, distance_N))
    if not distance_N.isfinite().all():
        raise ValueError(f"distance_N: row {int((~distance_N.isfinite()).nonzero()[0])} has one that is not finite")
    order = torch.argsort(rank(as_ids(ids, n, where), seed, "semdedup"))
    order = order[distance_N[order].argsort(descending=True, stable=True)]
    order = order[cluster_N[order].argsort(stable=True)]
    _, sizes = cluster_N[order].unique_consecutive(return_counts=True)
    groups = list(_together(sizes.tolist()))
    members = order.split([sum(group) for group in groups])
    score = torch.cat([*mapper(partial(_of_group, rows, block_size=block_size, device=where), members, groups)])
    return torch.empty_like(score).index_copy_(0, order, score)


def earlier_similarity(x_MD: Tensor, block_size: int = BLOCK_OF_CLUSTER) -> Tensor:
    """Largest cosine of each row with one above it, M, −1 for the first: the upper triangle, block by block."""
    x_MD = unit(x_MD)
    score_M = x_MD.new_full((len(x_MD),), -1.0)
    for start, stop in spans(len(x_MD), block_size):
        own_BB = x_MD[start:stop] @ x_MD[start:stop].T
        later = torch.ones_like(own_BB, dtype=torch.bool).triu()
        best_B = own_BB.masked_fill_(later, -1.0).amax(1)
        for first, last in spans(start, block_size):
            best_B = torch.maximum(best_B, (x_MD[start:stop] @ x_MD[first:last].T).amax(1))
        score_M[start:stop] = best_B.clamp(-1.0, 1.0)
    return score_M


def _of_group(rows: Rows, index_M: Tensor, sizes: list[int], *, block_size: int, device: torch.device) -> Tensor:
    """Of clusters whose members follow each other."""
    return torch.cat([earlier_similarity(x_MD, block_size) for x_MD in gather(rows, index_M, device).split(sizes)])


def _together(sizes: list[int]) -> Iterator[list[int]]:
    """Clusters in their order, small ones in groups of at most AT_ONCE rows."""
    group, total = sizes[:1], sum(sizes[:1])
    for size in sizes[1:]:
        if total + size > AT_ONCE:
            yield group
            group, total = [], 0
        group.append(size)
        total += size
    yield group
