"""A number of samples shared out among classes. Shapes: C classes."""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import bits


def largest_remainder(sizes_C: np.ndarray, count: int, purpose: int, classes_C: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to `sizes_C` that add up to `count` (Hamilton's method).

    Of classes with equal remainders, those with the smallest hashes get one more: an order that depends on nothing but
    the purpose and the class. So no class is preferred over all seeds, and where all sizes are equal no class gets less
    of a larger count.

    Args:
        sizes_C: whole numbers of at least 0, not all of them 0.
        count: 0 to the sum of the sizes.
        purpose: key of the hash (see `kdprune.data.counter.key`).
        classes_C: what the classes are called, int64, none twice.
    """
    quotas_C, remainders_C = np.divmod(sizes_C * count, sizes_C.sum())
    hashes_C = bits(purpose, torch.from_numpy(np.asarray(classes_C, dtype=np.int64))).numpy()
    quotas_C[np.lexsort((hashes_C, -remainders_C))[: count - quotas_C.sum()]] += 1
    return quotas_C
