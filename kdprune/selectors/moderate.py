"""The middle of each class. Shapes: M candidates, K of one class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdprune.registry import register
from kdprune.selectors.common.order import lowest
from kdprune.selectors.common.pool import Pool, declare, scores_of
from kdprune.selectors.common.quotas import by_class, quotas


@register("selectors", "moderate")
@declare(needs=["scores", "labels"])
def moderate(pool: Pool) -> np.ndarray:
    """Keep, of each class its share, the samples whose score is nearest to the median of their class.

    Xia et al. 2023 (https://openreview.net/forum?id=7D5EECbOaf9), where the score is the distance to the centre of the
    class. It is balanced by itself. Without labels, `window` keeps the middle of all samples.
    """
    classes, groups = by_class(pool.candidates, pool.labels)
    shares = quotas(np.array([len(group) for group in groups]), pool.count, pool.seed, classes)
    kept = np.zeros(len(pool.labels), dtype=bool)
    for group, share in zip(groups, shares, strict=True):
        group = group.astype(np.int64)
        scores_K = scores_of(replace(pool, candidates=group))
        kept[group[lowest(distances(scores_K), int(share), group, pool.seed)]] = True
    return np.flatnonzero(kept)


def distances(scores_K: np.ndarray) -> np.ndarray:
    """|score − median|, the lower of the two middle ones where K is even; infinite scores are as far as can be."""
    middle = (len(scores_K) - 1) // 2
    median = np.partition(scores_K, middle)[middle]
    with np.errstate(invalid="ignore"):  # inf − inf
        return np.where(scores_K == median, np.float32(0), np.abs(scores_K - median))
