"""The validation part: training samples set aside for choosing settings, so that the held-out part is not used up."""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import key, permutation
from kdprune.data.quotas import largest_remainder


def validation_ids(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sample ids of a part of the training set, in which every class has its share; a function of its arguments.

    Nothing may be trained on them, neither a student nor a teacher.

    Args:
        labels: int64 N; samples without a label (-1) count as a class of their own.
        fraction: of the training set, in [0, 1); above 0 it is at least one sample, and at least one is left.
        seed: the same seed gives the same part everywhere.

    Returns:
        int64, ascending.

    Raises:
        ValueError: a fraction outside [0, 1), or above 0 with fewer than two samples.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"--data.val_fraction: {fraction} given, allowed is [0, 1)")
    if fraction == 0:
        return np.array([], dtype=np.int64)
    if len(labels) < 2:
        raise ValueError(f"--data.val_fraction: {fraction} given, but of {len(labels)} samples none can be set aside")
    count = min(max(1, round(fraction * len(labels))), len(labels) - 1)
    order = permutation(key(seed, "validation"), torch.arange(len(labels))).numpy()
    classes, class_of, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    quotas = _quotas(sizes, count, key(seed, "validation classes"), classes)
    return np.sort(np.concatenate([order[class_of == index][: quotas[index]] for index in range(len(classes))]))


def _quotas(sizes_C: np.ndarray, count: int, purpose: int, classes_C: np.ndarray) -> np.ndarray:
    """Each class's share of `count`; where that is possible, each keeps a sample to be trained on."""
    quotas_C = largest_remainder(sizes_C, count, purpose, classes_C)
    spare_C = sizes_C - 1
    if spare_C.sum() < count:
        return quotas_C
    quotas_C = np.minimum(quotas_C, spare_C)
    left = spare_C - quotas_C
    missing = count - quotas_C.sum()
    return quotas_C + (largest_remainder(left, missing, purpose, classes_C) if left.any() else 0)
