"""The samples that pruners look at: so many of each class, a function of the seed.

Shapes: N samples of the unpruned training set, K that may be chosen, C classes.
"""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import bits, key

PART = 256
"""Samples that go through the network at once, at most. BatchNorm normalises each part by itself, so it is a constant
and no setting: another batch size or number of processes must not give another mask."""


def balanced_parts(labels_N: np.ndarray, ids_K: np.ndarray, per_class: int, seed: int) -> list[np.ndarray]:
    """Sample ids in parts of about one size, every class as often as the others, as far as it has samples.

    Args:
        labels_N: int64, −1 without a label.
        ids_K: samples that may be chosen.
        per_class: of each class, or all that it has.
        seed: the same one chooses the same samples, whatever else may be chosen.

    Raises:
        ValueError: a sample has no label.
    """
    labels_K = labels_N[ids_K]
    if (labels_K < 0).any():
        raise ValueError("there are samples without a label")
    hashes_K = bits(key(seed, "pruner"), torch.from_numpy(np.ascontiguousarray(ids_K, dtype=np.int64))).numpy()
    order_K = np.lexsort((hashes_K, labels_K))
    _, first_C, sizes_C = np.unique(labels_K[order_K], return_index=True, return_counts=True)
    rank_K = np.arange(len(order_K)) - np.repeat(first_C, sizes_C)  # of each among those of its class
    chosen = order_K[rank_K < per_class]
    # One of each class after the other, so that every part has all classes.
    chosen = chosen[np.lexsort((labels_K[chosen], rank_K[rank_K < per_class]))]
    return np.array_split(ids_K[chosen], -(-len(chosen) // PART))
