"""Samples in the order of their difficulty, and windows and parts of that order.

Shapes: N samples of the unpruned training set, M that were scored, W windows.
"""

from __future__ import annotations

import numpy as np

from kdprune.data.counter import key
from kdprune.data.scores import Scores
from kdprune.selectors.common.order import hashes


def by_difficulty(scores: Scores, seed: int = 0) -> np.ndarray:
    """Sample ids from the easiest to the hardest, int64 M; ties by a seeded permutation, samples without a score left
    out."""
    ids_M = np.flatnonzero(~np.isnan(scores.values))
    return ids_M[np.lexsort((hashes(key(seed, "ties"), ids_M), scores.difficulty[ids_M]))]


def window_starts(total: int, size: int, windows: int) -> np.ndarray:
    """Where windows of `size` successive ranks begin, int64 W: evenly spread from the first rank to the last.

    Raises:
        ValueError: no window, or a window longer than the order.
    """
    if not 1 <= size <= total:
        raise ValueError(f"--size: {size} given, allowed are 1 to {total:,}, the samples with a score")
    if windows < 1:
        raise ValueError(f"--windows: {windows} given, allowed are 1 and more")
    return np.unique(np.linspace(0, total - size, windows).round().astype(np.int64))


def parts_of(order_M: np.ndarray, parts: int) -> list[np.ndarray]:
    """The order cut into parts whose sizes differ by one at most, from the easiest to the hardest.

    Raises:
        ValueError: no part, or more parts than samples.
    """
    if not 1 <= parts <= len(order_M):
        raise ValueError(f"--parts: {parts} given, allowed are 1 to {len(order_M):,}, the samples with a score")
    return np.array_split(order_M, parts)
