"""Greedy k-center: again and again the row that is farthest from all centres.

Shapes: N rows, P rows of the pool, M rows that are brought up to date, D features, C centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.rows import (
    BLOCK,
    Rows,
    as_ids,
    block,
    check,
    check_count,
    device_of,
    gather,
    lowest_rank,
    rank,
    rounding,
    spans,
)  # fmt: skip

CENTERS = 256  # in a product with a block of rows, which takes 16 MiB
POOL = 4096  # rows that a choice is made among; at most, for every choice costs a product with them


@dataclass(frozen=True)
class KCenter:
    """The centres in the order of their choice.

    Attributes:
        chosen: their positions, int64 `count`.
        radius: Euclidean distance of each to the centres before it, as it was chosen; infinite where there were none.
    """

    chosen: Tensor
    radius: Tensor


def kcenter(
    features: Rows, count: int, *, kept: Any = None, ids: Any = None, seed: int = 0, pool: int = POOL,
    device: torch.device | str | None = None,
) -> KCenter:  # fmt: skip
    """Farthest-first traversal (Gonzalez 1985; Sener & Savarese 2018, algorithm 1), exactly, by lazy updates.

    The naive algorithm updates all N distances for each centre. But the distance to the nearest centre only falls, so
    an old one is an upper bound. Of the rows with the largest bounds, some are brought up to date, in one matrix
    product with all centres that they have missed, and the farthest of them are the pool. While the pool's maximum
    exceeds τ, the largest bound outside of it, it is the maximum of all rows, and only the pool needs to hear of the
    new centre. The rows near a centre are seldom touched again. Time is at most that of the naive algorithm but for
    choosing pools; memory O(N) beside the features, and O(count·D) for the centres.

    Without `kept`, the first centre is the row farthest from the mean. Rows whose squared distances differ by no more
    than rounding tie. Distances are computed in float32, or in float64 if the features are.

    Args:
        features: N×D, a tensor, array or memory map.
        count: how many centres to choose, besides those kept.
        kept: positions of rows that are centres already; they are not chosen.
        ids: sample id of each row, for ties.
        seed: of the order among rows that tie.
        pool: rows that a choice is made among; the result does not depend on it.
        device: where to compute; where the features lie, by default.

    Raises:
        ValueError: count is more than there are rows to choose from or below 1, a row is not finite, a kept row is
            outside [0, N) or given twice, ids are not one for each row.
    """
    n, _ = check(features)
    where = device_of(features, device)
    kept_K = _kept(kept, n, where)
    check_count("count", count, n - len(kept_K))
    bounds = _Bounds(features, len(kept_K) + count, rank(as_ids(ids, n, where), seed, "kcenter"), where)
    radius: list[Tensor] = []
    if len(kept_K):
        bounds.add(kept_K)
    else:
        first = lowest_rank(bounds.squares_N >= bounds.squares_N.max() - bounds.band, bounds.rank_N)
        bounds.add(first[None])
        radius.append(bounds.squares_N.new_tensor(torch.inf))
    while bounds.centers - len(kept_K) < count:
        pool_P, outside = bounds.farthest(pool)
        radius += bounds.choose(pool_P, outside, len(kept_K) + count)
    return KCenter(bounds.chosen[len(kept_K) :], torch.stack(radius).clamp(min=0).sqrt())


class _Bounds:
    """Upper bounds of the squared distances to the nearest centre, and how many centres each bound knows of."""

    def __init__(self, features: Rows, centers: int, rank_N: Tensor, device: torch.device) -> None:
        self.features, self.rank_N, self.device, n = features, rank_N, device, len(features)
        sums = [block(features, span, device).sum(0, dtype=torch.float64) for span in spans(n, BLOCK)]
        self.mean_D = torch.stack(sums).sum(0) / n
        self.squares_N = torch.cat([_squares(self._centered(block(features, s, device))) for s in spans(n, BLOCK)])
        self.band = rounding(self.squares_N.dtype) * self.squares_N.max()
        self.bound_N = torch.full_like(self.squares_N, torch.inf)
        self.known_N = torch.zeros(n, dtype=torch.int64, device=device)
        self.chosen = torch.zeros(centers, dtype=torch.int64, device=device)
        self.center_CD = self.squares_N.new_zeros(centers, len(self.mean_D))
        self.centers = 0

    def add(self, chosen_M: Tensor) -> None:
        new = slice(self.centers, self.centers + len(chosen_M))
        self.chosen[new], self.center_CD[new] = chosen_M, self._rows(chosen_M)
        self.bound_N[chosen_M] = -torch.inf  # never chosen again
        self.centers = new.stop

    def update(self, index_M: Tensor) -> None:
        """Bring the bounds of some rows up to date."""
        index_M = index_M[self.known_N[index_M].argsort()]
        for start, stop in spans(len(index_M), BLOCK):
            rows = index_M[start:stop]
            x_MD, square_M, bound_M = self._rows(rows), self.squares_N[rows], self.bound_N[rows]
            for first, last in spans(self.centers - (known := int(self.known_N[rows[0]])), CENTERS):
                c_CD = self.center_CD[known + first : known + last]
                nearest_M = torch.addmm(_squares(c_CD), x_MD, c_CD.T, alpha=-2).amin(1)
                bound_M = torch.minimum(bound_M, (nearest_M + square_M).clamp(min=0))
            self.bound_N[rows], self.known_N[rows] = bound_M, self.centers

    def farthest(self, size: int) -> tuple[Tensor, Tensor]:
        """The farthest rows by true distance, and the largest bound of the others, which is below their largest."""
        n = len(self.bound_N)
        wanted = max(4 * size, n // 16)
        while True:
            bound, index = self.bound_N.topk(min(wanted, n))
            looked, fresh = 0, True
            while looked < len(index):
                stale = index[looked : looked + 4 * size]
                looked += len(stale)
                stale = stale[(self.known_N[stale] < self.centers) & (self.bound_N[stale] >= 0)]  # no centres
                fresh = fresh and not len(stale)
                self.update(stale)
                true, order = self.bound_N[index[:looked]].sort(descending=True)
                if size <= looked < len(index) and true[size - 1] >= bound[looked] < true[0] - self.band:
                    break  # no other row belongs into the pool, and the first choice is certain
            # Of the rows that were not looked at.
            outside = bound[min(looked, len(bound) - 1)] if looked < n else bound.new_tensor(-torch.inf)
            inside = min(size, looked)
            if inside < looked and true[0] - self.band > true[inside]:
                outside = torch.maximum(outside, true[inside])
            else:  # so many rows tie that they do not fit into a pool
                inside = looked
            if true[0] - self.band > outside:
                return index[order[:inside]], outside
            if fresh:  # nothing was learned, so a wider look is needed
                wanted *= 2

    def choose(self, pool_P: Tensor, outside: Tensor, centers: int) -> list[Tensor]:
        """Choose in the pool as long as its farthest row is the farthest of all; their squared distances."""
        x_PD, square_P, bound_P = self._rows(pool_P), self.squares_N[pool_P], self.bound_N[pool_P]
        rank_P, live = self.rank_N[pool_P], len(pool_P)
        found: list[Tensor] = []
        while self.centers < centers:
            farthest = bound_P.max()
            if farthest - self.band <= outside:
                break
            if farthest <= self.band:  # copies of centres are left, all of them in the pool, and all of them tie
                copies = bound_P.isfinite().nonzero().flatten()
                copies = copies[rank_P[copies].argsort()][: centers - self.centers]
                self.add(pool_P[copies])
                return found + list(bound_P[copies])
            i = lowest_rank(bound_P >= farthest - self.band, rank_P)
            found.append(bound_P[i])
            self.chosen[self.centers], self.center_CD[self.centers] = pool_P[i], x_PD[i]
            self.centers += 1
            distance_P = torch.addmv(square_P + square_P[i], x_PD, x_PD[i], alpha=-2).clamp(min=0)
            bound_P = torch.minimum(bound_P, distance_P)
            bound_P[i] = -torch.inf
            if len(found) % 32 == 0 and (is_live := bound_P > outside).sum() < live / 2:
                # The others cannot be chosen before the next pool.
                self._write(pool_P, bound_P)
                pool_P, x_PD, square_P, bound_P, rank_P = (
                    t[is_live] for t in (pool_P, x_PD, square_P, bound_P, rank_P)
                )
                if not (live := len(pool_P)):
                    return found
        self._write(pool_P, bound_P)
        return found

    def _write(self, pool_P: Tensor, bound_P: Tensor) -> None:
        self.bound_N[pool_P], self.known_N[pool_P] = bound_P, self.centers

    def _rows(self, index_M: Tensor) -> Tensor:
        return self._centered(gather(self.features, index_M, self.device))

    def _centered(self, x_MD: Tensor) -> Tensor:
        # Products of rows about the mean lose the fewest digits.
        return x_MD - self.mean_D.to(x_MD.dtype)


def _squares(x_MD: Tensor) -> Tensor:
    return torch.linalg.vecdot(x_MD, x_MD)


def _kept(kept: Any, n: int, device: torch.device) -> Tensor:
    kept_K = torch.as_tensor([] if kept is None else kept).to(device, torch.int64).flatten()
    if len(kept_K) and not 0 <= int(kept_K.min()) <= int(kept_K.max()) < n:
        raise ValueError(f"kept: {int(kept_K.min())} to {int(kept_K.max())} given, allowed are rows 0 to {n - 1}")
    if len(kept_K.unique()) < len(kept_K):
        raise ValueError(f"kept: {len(kept_K) - len(kept_K.unique())} rows given twice, allowed is each row once")
    return kept_K
