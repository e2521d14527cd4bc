"""K-means by blocks: each is mapped to sums by itself, and the sums are added in the order of the blocks.

Shapes: N samples, B rows of a block, D features, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdprune.data.counter import bits, key
from kdprune.geometry.rows import (
    BLOCK,
    Mapper,
    Rows,
    as_ids,
    block,
    check,
    check_count,
    device_of,
    gather,
    rounding,
    spans,
    unit,
)  # fmt: skip

INIT_ROUNDS = 256  # of k-means++; up to this many clusters each round draws one
INIT_POINTS = 16  # rows for each centroid that k-means++ draws from
CELLS = 2**22  # of a temporary matrix; of larger ones, each takes new memory, and clearing that takes a CPU's time
SPLIT = 2.0**-10  # how far the halves of a split cluster are moved apart, relative to the centroid


@dataclass(frozen=True)
class KMeans:
    """What k-means found.

    Attributes:
        centroids_KD: of length one if spherical.
        cluster_N: nearest centroid of each row, int64.
        distance_N: to it: squared Euclidean, or 1 − cos if spherical.
        sizes_K: rows in each cluster, int64; zero is possible where many rows are equal.
        inertia: sum of the distances.
        iterations: made before it stopped.
    """

    centroids_KD: Tensor
    cluster_N: Tensor
    distance_N: Tensor
    sizes_K: Tensor
    inertia: float
    iterations: int


def kmeans(
    rows: Rows, k: int, *, spherical: bool = False, iterations: int = 25, tolerance: float = 1e-4,
    points_per_centroid: int | None = 256, seed: int = 0, ids: Any = None, block_size: int = BLOCK,
    device: torch.device | str | None = None, mapper: Mapper = map,
) -> KMeans:  # fmt: skip
    """Lloyd's algorithm from a greedy k-means++ start (Arthur & Vassilvitskii 2007), then one assignment of all rows.

    Centroids are trained on `points_per_centroid`·k rows, as faiss does, chosen by a hash of their ids. An empty
    cluster takes half of the largest one. The start draws in at most 256 rounds, so beyond 256 clusters a round draws
    several rows at once, by the same probabilities, without replacement; it draws from 16·k rows.

    The result is the same to the bit for any number of workers behind `mapper`, and to rounding for any block size.
    `map` keeps the rows that it trains on in memory; with workers and rows that have `at`, each reads its blocks of
    them, and only 16·k rows and the centroids are here.

    Args:
        rows: features, N×D.
        k: number of clusters.
        spherical: rows and centroids of length one, distance 1 − cos (Dhillon & Modha 2001).
        iterations: at most this many.
        tolerance: stop once an iteration lowers the inertia by less than this share of it.
        points_per_centroid: rows to train on for each centroid; None trains on all, a pass over `rows` an iteration.
        seed: of the draws.
        ids: sample id of each row, which its draws are a hash of.
        block_size: rows in memory at a time.
        device: where to compute; where the features lie, by default.
        mapper: `map`, or an executor's, that gives the results in order.

    Raises:
        ValueError: k is not in [1, N], a row is not finite, ids are not one for each row.
    """
    n, _ = check(rows)
    check_count("k", k, n)
    where = device_of(rows, device)
    order = torch.argsort(bits(key(seed, "kmeans sample"), as_ids(ids, n, where)), stable=True)
    size = n if points_per_centroid is None else min(n, max(points_per_centroid, 1) * k)
    train: Rows = rows
    blocks: Sequence[tuple[int, int] | Tensor] = list(spans(size, block_size))
    if size < n:
        # In the order of the ids' hashes, so that the order of the rows does not matter for the sums either.
        if mapper is not map and hasattr(rows, "at"):
            blocks = order[:size].split(block_size)
        else:
            train = gather(rows, order[:size], where)
    centroids = start(rows, order[: INIT_POINTS * k], k, ids=ids, seed=seed, spherical=spherical, device=where)
    before, made = float("inf"), 0
    while made < iterations:
        step = partial(block_sums, train, centroids_KD=centroids, spherical=spherical, device=where)
        total, inertia = reduce_sums(mapper(step, blocks), centroids, spherical)
        centroids, made = moved(total, centroids, spherical), made + 1
        if before - inertia <= tolerance * inertia:
            break
        before = inertia
    return assign(rows, centroids, spherical=spherical, block_size=block_size, device=where, mapper=mapper, made=made)


def assign(
    rows: Rows, centroids_KD: Tensor, *, spherical: bool = False, block_size: int = BLOCK,
    device: torch.device | str | None = None, mapper: Mapper = map, made: int = 0,
) -> KMeans:  # fmt: skip
    """Every row to its nearest centroid, in one pass over the rows."""
    n, _ = check(rows)
    where = device_of(rows, device)
    step = partial(block_assignment, rows, centroids_KD=centroids_KD.to(where), spherical=spherical, device=where)
    clusters, distances = zip(*mapper(step, spans(n, block_size)), strict=True)
    cluster_N, distance_N = torch.cat(clusters), torch.cat(distances)
    sizes_K = torch.bincount(cluster_N, minlength=len(centroids_KD))
    return KMeans(centroids_KD, cluster_N, distance_N, sizes_K, float(distance_N.sum(dtype=torch.float64)), made)


def block_assignment(
    rows: Rows, span: tuple[int, int], *, centroids_KD: Tensor, spherical: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Nearest centroid of each row of a block, and the distance to it, taken from their difference, not a product."""
    x_BD = block(rows, span, device)
    x_BD = unit(x_BD) if spherical else x_BD
    cluster_B = nearest(x_BD, centroids_KD)
    difference_BD = x_BD - centroids_KD[cluster_B]
    squared_B = torch.linalg.vecdot(difference_BD, difference_BD)
    if spherical:  # ‖x − c‖² = 2 − 2 cos for rows of length one; the others are zero, with a cosine of 0
        return cluster_B, torch.where(x_BD.any(1), squared_B / 2, 1)
    return cluster_B, squared_B


def nearest(x_BD: Tensor, centroids_KD: Tensor) -> Tensor:
    """Nearest centroid in squared Euclidean distance, int64 B."""
    # About the centroids' mean s, ‖x − c‖² = ‖x − s‖² + ‖c'‖² − 2(x − s)·c' with c' = c − s: features far from the
    # origin lose no digits to ‖c‖².
    shift_D = centroids_KD.mean(0)
    c_KD = (centroids_KD - shift_D).to(x_BD.dtype)
    bias_K = torch.linalg.vecdot(c_KD, c_KD) + 2 * (c_KD @ shift_D.to(x_BD.dtype))
    parts = x_BD.split(max(1, CELLS // len(c_KD)))
    return torch.cat([torch.addmm(bias_K, part, c_KD.T, alpha=-2).argmin(1) for part in parts])


def block_sums(
    rows: Rows, span: tuple[int, int] | Tensor, *, centroids_KD: Tensor, spherical: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The map: sums of a block's rows by nearest centroid, float64 K×D, their counts K, and Σ‖x‖²."""
    x_BD = block(rows, span, device)
    x_BD = unit(x_BD) if spherical else x_BD
    cluster_B = nearest(x_BD, centroids_KD)
    sums_KD = torch.zeros(centroids_KD.shape, dtype=torch.float64, device=device)
    size = max(1, CELLS // x_BD.shape[1] // 2)
    for part, clusters in zip(x_BD.split(size), cluster_B.split(size), strict=True):
        # Not index_add_, which adds in any order on a GPU.
        sums_KD.index_put_((clusters,), part.double(), accumulate=True)
    counts_K = torch.bincount(cluster_B, minlength=len(centroids_KD))
    return sums_KD, counts_K, torch.linalg.vecdot(x_BD, x_BD).sum(dtype=torch.float64)


def reduce_sums(
    parts: Iterable[tuple[Tensor, Tensor, Tensor]], centroids_KD: Tensor, spherical: bool
) -> tuple[tuple[Tensor, Tensor], float]:
    """The reduce, in the order of the blocks: sums and counts, and the inertia about the old centroids."""
    sums_KD = torch.zeros(centroids_KD.shape, dtype=torch.float64, device=centroids_KD.device)
    counts_K, squares = torch.zeros_like(sums_KD[:, 0], dtype=torch.int64), sums_KD.new_zeros(())
    for sums, counts, square in parts:
        sums_KD += sums.to(sums_KD.device)
        counts_K += counts.to(sums_KD.device)
        squares += square.to(sums_KD.device)
    c_KD = centroids_KD.double()
    inertia = squares - 2 * (c_KD * sums_KD).sum() + (counts_K * c_KD.square().sum(1)).sum()
    return (sums_KD, counts_K), float(inertia) / (2 if spherical else 1)


def moved(total: tuple[Tensor, Tensor], centroids_KD: Tensor, spherical: bool) -> Tensor:
    """The clusters' means; an empty cluster and the largest one become two halves of the latter."""
    sums_KD, counts_K = total
    means_KD = sums_KD / counts_K.clamp(min=1)[:, None]
    sizes = counts_K.double()
    sign_D = 1 - 2 * (torch.arange(means_KD.shape[1], device=means_KD.device) % 2)
    for empty in (counts_K == 0).nonzero().flatten().tolist():
        largest = int(sizes.argmax())
        means_KD[empty] = means_KD[largest] * (1 + SPLIT * sign_D)
        means_KD[largest] *= 1 - SPLIT * sign_D
        sizes[empty] = sizes[largest] = sizes[largest] / 2
    return (unit(means_KD) if spherical else means_KD).to(centroids_KD.dtype)


def start(
    rows: Rows, candidates_M: Tensor, k: int, *, ids: Any, seed: int, spherical: bool, device: torch.device
) -> Tensor:
    """First centroids: rows drawn with probabilities in proportion to the squared distance to those drawn before.

    The row of the largest log d² + Gumbel noise is such a draw, and the m largest are m draws without replacement; the
    noise is a hash of the row's id and the round. For each centroid 2 + ln k rows are drawn, and the one that lowers
    the sum of the distances most is taken, as in scikit-learn.
    """
    x_MD = gather(rows, candidates_M, device)
    x_MD = unit(x_MD) if spherical else x_MD
    ids_M = as_ids(ids, len(rows), device)[candidates_M]
    y_MD = x_MD - x_MD.mean(0)
    squares_M = torch.linalg.vecdot(y_MD, y_MD)
    nil = rounding(y_MD.dtype) * squares_M.max()
    least_M = torch.full_like(squares_M, float("inf"))
    free_M = torch.ones_like(squares_M, dtype=torch.bool)
    drawn: list[Tensor] = []
    for turn, (first, last) in enumerate(spans(k, -(-k // INIT_ROUNDS))):
        uniform_M = (bits(key(seed, "kmeans start"), ids_M, turn) >> 11).double() * 2.0**-53 + 0.5
        noise_M = -torch.log(-torch.log(uniform_M.clamp(2.0**-53, 1 - 2.0**-53)))
        # Copies of a drawn row come last, in an order of their own.
        weight_M = torch.where(least_M > nil, least_M.double().clamp(max=1e300).log(), -1e4)
        each = min(2 + int(math.log(k)), (len(x_MD) - first) // (last - first)) if turn else 1
        trials = torch.where(free_M, weight_M + noise_M, -torch.inf).topk(each * (last - first)).indices
        if each > 1:
            left = _left(y_MD, squares_M, least_M, trials).view(each, -1)
            trials = trials.view(each, -1).gather(0, left.argmin(0, keepdim=True))[0]
        drawn.append(trials)
        free_M[trials] = False
        distance = torch.addmm(squares_M[trials], y_MD, y_MD[trials].T, alpha=-2).amin(1) + squares_M
        least_M = torch.minimum(least_M, distance.clamp(min=0))
    return x_MD[torch.cat(drawn)]


def _left(y_MD: Tensor, squares_M: Tensor, least_M: Tensor, trials: Tensor) -> Tensor:
    """Sum of the squared distances to the nearest drawn row after each trial, float64."""
    c_TD, size = y_MD[trials], max(1, CELLS // len(trials))
    total_T = torch.zeros(len(trials), dtype=torch.float64, device=y_MD.device)
    for y_BD, square_B, least_B in zip(y_MD.split(size), squares_M.split(size), least_M.split(size), strict=True):
        distance_BT = torch.addmm(squares_M[trials], y_BD, c_TD.T, alpha=-2).add_(square_B[:, None]).clamp_(min=0)
        total_T += torch.minimum(distance_BT, least_B[:, None]).sum(0, dtype=torch.float64)
    return total_T
