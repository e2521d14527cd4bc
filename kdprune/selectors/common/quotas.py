"""How many samples of each class are kept. Shapes: C classes, M candidates, N samples."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from kdprune.data.counter import key
from kdprune.data.grouping import grouped
from kdprune.data.quotas import largest_remainder
from kdprune.selectors.common.order import blocks


def quotas(sizes_C: np.ndarray, count: int, seed: int, classes_C: np.ndarray) -> np.ndarray:
    """Each class's share of `count` kept samples, by largest remainder; ties by a hash of (seed, "quotas", class)."""
    return largest_remainder(sizes_C, count, key(seed, "quotas"), classes_C)


def lifted(quotas_C: np.ndarray, floors_C: np.ndarray | int, seed: int, classes_C: np.ndarray) -> np.ndarray:
    """The quotas with none below its floor; the others make room in proportion to what they hold beyond theirs.

    Their sum stays, which must be at least that of the floors. Ties go by a hash of (seed, "room", class).
    """
    lacking = np.maximum(floors_C - quotas_C, 0)
    if not lacking.any():
        return quotas_C
    spare = np.maximum(quotas_C - floors_C, 0)
    return quotas_C + lacking - largest_remainder(spare, lacking.sum(), key(seed, "room"), classes_C)


def floors(class_floor: float, sizes_C: np.ndarray, count: int, seed: int, classes_C: np.ndarray) -> np.ndarray:
    """The least number of kept samples of each class, int64 C.

    Args:
        class_floor: a whole number of samples; or a share in (0, 1) of what uniform pruning would leave of each class
            (Sorscher et al. 2022, §5), rounded up.
        sizes_C: candidates of each class.
        count: kept samples of all classes together.
        seed, classes_C: of the quotas under uniform pruning, which are those of a balanced subset.
    """
    if class_floor >= 1 or not class_floor:
        return np.full(len(sizes_C), int(class_floor))
    share = Fraction(str(class_floor))  # 0.1 is a tenth, as it was written, not the float beside it
    uniform_C = quotas(sizes_C, count, seed, classes_C)
    return np.array([-(-int(quota) * share.numerator // share.denominator) for quota in uniform_C])


def sizes_of(labels_N: np.ndarray) -> np.ndarray:
    """Samples of each class from 0 to the largest label, int64; those without a label, -1, are not counted."""
    sizes = np.zeros(int(labels_N.max()) + 1, dtype=np.int64)
    for block in blocks(len(labels_N)):
        labels = labels_N[block]
        sizes += np.bincount(labels[labels >= 0], minlength=len(sizes))
    return sizes


def by_class(candidates_M: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes among the candidates, ascending, and the candidates of each, ascending; uint32 where ids fit."""
    is_all, total = len(candidates_M) == len(labels_N), int(labels_N.max()) + 1
    small = labels_N.astype(np.uint16) if total <= 2**16 else labels_N  # a quarter of the memory
    groups = grouped(small if is_all else small[candidates_M], total)
    present = [label for label, group in enumerate(groups) if len(group)]
    for label in present if not is_all else []:
        groups[label][:] = candidates_M[groups[label]]
    return np.array(present), [groups[label] for label in present]
