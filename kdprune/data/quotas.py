"""A number of samples shared out among classes."""

from __future__ import annotations

import numpy as np


def largest_remainder(sizes: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers in proportion to `sizes` that add up to `count` (Hamilton's method; ties go to the first class)."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    missing = count - quotas.sum()
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas
