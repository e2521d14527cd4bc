"""Random selection, over all samples or with exact quotas for each class."""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import key, permutation
from kdprune.registry import register


@register("selectors", "random")
def random(candidates: np.ndarray, labels: np.ndarray, count: int, seed: int, balanced: bool = False) -> np.ndarray:
    """Keep `count` of the candidates, uniformly at random.

    A sample's place is a hash of (seed, sample id), so a smaller count keeps a part of what a larger one keeps.

    Args:
        candidates: sample ids to choose from, int64 M.
        labels: class of every sample of the unpruned training set, int64 N.
        count: how many to keep, 1 to M.
        seed: of the selection.
        balanced: give every class its share of `count` by its size, exact by largest remainder.

    Returns:
        the kept sample ids, ascending, int64.
    """
    order = permutation(key(seed, "subset"), torch.from_numpy(candidates)).numpy()
    if not balanced:
        return np.sort(order[:count])
    classes, place, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes, count)
    parts = [order[place == index][:quota] for index, quota in zip(range(len(classes)), quotas, strict=True)]
    return np.sort(np.concatenate(parts))


def largest_remainder(sizes: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers in proportion to `sizes` that add up to `count` (Hamilton's method; ties go to the first class)."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    missing = count - quotas.sum()
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas
