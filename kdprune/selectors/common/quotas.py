"""How many samples of each class are kept. Shapes: C classes, M candidates."""

from __future__ import annotations

import numpy as np

from kdprune.data.quotas import largest_remainder


def lifted(quotas_C: np.ndarray, floor: int) -> np.ndarray:
    """The quotas with none below `floor`; the classes above it make room in proportion to what they hold beyond it.

    Their sum stays, which must be at least `floor` for each class.
    """
    lacking = np.maximum(floor - quotas_C, 0)
    if not lacking.any():
        return quotas_C
    return quotas_C + lacking - largest_remainder(np.maximum(quotas_C - floor, 0), lacking.sum())


def by_class(candidates_M: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes among the candidates, ascending, and the candidates of each."""
    classes_M = labels_N[candidates_M]
    sizes = np.bincount(classes_M)
    # numpy sorts numbers of 16 bits by their digits, in linear time.
    order = np.argsort(classes_M.astype(np.uint16) if len(sizes) <= 2**16 else classes_M, kind="stable")
    present = np.flatnonzero(sizes)
    return present, np.split(candidates_M[order], np.cumsum(sizes[present])[:-1])
