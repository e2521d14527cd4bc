"""Who comes first: by value, by hash, and by a seeded permutation where values are equal.

Written for a hundred million samples: what is held beside the input is 4 bytes a sample, and hashes are made in blocks.

Shapes: M candidates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from kdprune.data import counter
from kdprune.data.counter import BLOCK, key


def blocks(total: int, size: int | None = None) -> Iterator[slice]:
    """Slices that cover `total` samples, so that what is made of each of them stays small."""
    size = size or BLOCK
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def hashes(purpose: int, ids_M: np.ndarray) -> np.ndarray:
    """64 bits for each sample id, int64 M; no two ids have the same."""
    return counter.hashes(purpose, torch.from_numpy(ids_M)).numpy()


def uniform(purpose: int, ids_M: np.ndarray) -> np.ndarray:
    """A number in (0, 1) for each sample id, float64 M, a multiple of 2⁻⁵³ plus 2⁻⁵⁴."""
    return ((hashes(purpose, ids_M).view(np.uint64) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def first_by_hash(purpose: int, ids_M: np.ndarray, count: int) -> np.ndarray:
    """The `count` ids with the smallest hashes, as a mask, bool M: a uniformly random choice.

    Args:
        purpose: key of the hash (see `kdprune.data.counter.key`).
        ids_M: sample ids, int64, none twice.
        count: 0 to M.
    """
    if count in (0, len(ids_M)):
        return np.full(len(ids_M), count > 0)
    if len(ids_M) <= BLOCK:
        hashes_M = hashes(purpose, ids_M)
        return hashes_M <= np.partition(hashes_M, count - 1)[count - 1]  # no two are equal
    # 4 bytes a sample instead of 8.
    upper_M = np.empty(len(ids_M), dtype=np.int32)
    for block in blocks(len(ids_M)):
        upper_M[block] = hashes(purpose, ids_M[block]) >> 32
    last = np.partition(upper_M, count - 1)[count - 1]
    chosen_M = upper_M < last
    # Those that share the upper half of the last one's hash are few; the whole hash decides among them.
    tied = np.flatnonzero(upper_M == last)
    order = np.argsort(hashes(purpose, ids_M[tied]))
    chosen_M[tied[order[: count - np.count_nonzero(chosen_M)]]] = True
    return chosen_M


def lowest(values_M: np.ndarray, count: int, ids_M: np.ndarray, seed: int) -> np.ndarray:
    """The `count` samples with the lowest values, as a mask, bool M.

    Samples are ordered by (value, hash of (seed, "ties", sample id)). This is a strict order, so a smaller count takes
    a part of what a larger one takes, and the highest are those that are not among the M − count lowest.

    Args:
        values_M: without NaN; ±inf sort as such.
        count: 0 to M.
        ids_M: their sample ids, int64.
        seed: of the selection.
    """
    if count in (0, len(values_M)):
        return np.full(len(values_M), count > 0)
    last = np.partition(values_M, count - 1)[count - 1]
    chosen_M = values_M < last
    tied_M = values_M == last
    missing = count - int(np.count_nonzero(chosen_M))
    chosen_M[tied_M] = first_by_hash(key(seed, "ties"), ids_M[tied_M], missing)
    return chosen_M


def highest(values_M: np.ndarray, count: int, ids_M: np.ndarray, seed: int) -> np.ndarray:
    """The `count` samples with the highest values, as a mask, bool M; see `lowest`."""
    return ~lowest(values_M, len(values_M) - count, ids_M, seed)
