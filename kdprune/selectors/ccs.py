"""Coverage-centric selection. Shapes: M candidates, S strata."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from kdprune.data.counter import key
from kdprune.messages import counted
from kdprune.registry import register
from kdprune.selectors.common.arguments import at_most, check_number, check_whole
from kdprune.selectors.common.order import blocks, first_by_hash, lowest
from kdprune.selectors.common.pool import Pool, declare, scores_of
from kdprune.selectors.common.quotas import grouped

log = logging.getLogger("kdprune")

# prune fraction → share of the hardest that is left out, as the authors found it for CIFAR-10 and forgetting or AUM
PUBLISHED = ((0.3, 0.0), (0.5, 0.0), (0.7, 0.1), (0.8, 0.1), (0.9, 0.3))
MOST = 10_000  # strata


def default_beta(pool: Pool) -> float:
    """The published β of CIFAR-10 at the pool's prune fraction, linear between its entries and constant outside."""
    fractions, betas = zip(*PUBLISHED, strict=True)
    return round(float(np.interp(1 - pool.count / len(pool.candidates), fractions, betas)), 4)


def resolve(pool: Pool, beta: Any = None, strata: Any = 50) -> dict[str, Any]:
    """β as given, or as published.

    Raises:
        ValueError: an argument out of its range; fewer samples than asked for without the β hardest.
    """
    check_whole("ccs(strata=…)", strata, 1, MOST)
    total, count = len(pool.candidates), pool.count
    if beta is None:
        beta = default_beta(pool)
        log.info(
            "ccs: beta is %g, as published for CIFAR-10 at this keep fraction (%.3g); ccs(beta=…) sets another",
            beta, count / total,
        )  # fmt: skip
    elif total - round(check_number("ccs(beta=…)", beta, 0, 1, "[)") * total) < count:
        raise ValueError(
            f"ccs: beta={beta} given leaves {total - round(beta * total):,} of {counted(total, 'sample')}, and "
            f"{count:,} asked for: allowed is {at_most(1 - count / total)}"
        )
    return {"beta": beta, "strata": strata}


@register("selectors", "ccs")
@declare(needs=["scores"], resolve=resolve)
def ccs(pool: Pool, beta: float | None = None, strata: int = 50) -> np.ndarray:
    """Leave out the hardest, cut the rest into strata of equal width, keep equally many of each where there are.

    Zheng et al. 2023 (https://openreview.net/forum?id=QwKvL6wC8Yi), algorithm 1. Infinite scores lie in the outermost
    strata. With β written out a smaller subset is part of a larger one; the published β changes with the fraction.

    Args:
        beta: share of the hardest samples that is left out, in [0, 1); None: as published for CIFAR-10.
        strata: number of strata between the lowest and the highest remaining score.
    """
    beta = default_beta(pool) if beta is None else beta
    total = len(pool.candidates)
    remaining = max(total - round(beta * total), pool.count)
    scores_M = scores_of(pool)
    strata_M = strata_of(scores_M, lowest(scores_M, remaining, pool.candidates, pool.seed), strata)
    inside_S = grouped(strata_M, strata + 1)[:strata]
    kept_M = np.zeros(total, dtype=bool)
    budgets_S = allocate(np.array([len(inside) for inside in inside_S]), pool.count)
    for inside, budget in zip(inside_S, budgets_S, strict=True):
        if budget:
            kept_M[inside[first_by_hash(key(pool.seed, "ccs"), pool.candidates[inside], int(budget))]] = True
    return pool.candidates[kept_M]


def strata_of(scores_M: np.ndarray, remains_M: np.ndarray, strata: int) -> np.ndarray:
    """The stratum of each sample that remains, by equal widths of its score; `strata` for the others, uint16 M."""
    low, high = np.inf, -np.inf
    for block in blocks(len(scores_M)):
        finite = scores_M[block][remains_M[block] & np.isfinite(scores_M[block])]
        low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
    # Without a finite score, any borders tell −inf from +inf.
    low, width = (float(low), float(high) - float(low)) if low <= high else (0.0, 0.0)
    strata_M = np.empty(len(scores_M), dtype=np.uint16)
    for block in blocks(len(scores_M)):
        # In float64: the range of float32 scores may not fit float32.
        above = scores_M[block].astype(np.float64) - low
        place = np.floor(above / width * strata) if width else np.where(above > 0, strata - 1, 0)
        strata_M[block] = np.where(remains_M[block], np.clip(place, 0, strata - 1), strata)
    return strata_M


def allocate(sizes_S: np.ndarray, count: int) -> np.ndarray:
    """How many samples of each stratum are kept: the smallest stratum first gets an equal part of what is left.

    `count` is at most the sum of `sizes_S`; the largest stratum then has room for what rounding has left over.
    """
    budgets_S = np.zeros_like(sizes_S)
    order = np.argsort(sizes_S, kind="stable")
    for place, stratum in enumerate(order):
        budgets_S[stratum] = min(sizes_S[stratum], count // (len(order) - place))
        count -= budgets_S[stratum]
    return budgets_S
