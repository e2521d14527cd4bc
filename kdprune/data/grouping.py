"""Very many samples by class: a counting sort, block by block. Shapes: M samples, B of a block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SORTED = 2**20  # samples of a block that is sorted

Block = tuple[int, np.ndarray, np.ndarray]


def grouped(classes_M: np.ndarray, total: int) -> list[np.ndarray]:
    """The positions of each class from 0 to `total` − 1, ascending; uint32 where they fit.

    An argsort of everything would take four times the memory.
    """
    ends = np.cumsum(_sizes(classes_M, total))
    positions_M = np.empty(len(classes_M), dtype=np.uint32 if len(classes_M) <= 2**32 else np.int64)
    for start, order_B, places_B in _placed(classes_M, ends):
        positions_M[places_B] = start + order_B
    return np.split(positions_M, ends[:-1])


def dealt(values_M: np.ndarray, classes_M: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """The values by class, M, each class in their order; and where each class ends there, `total` of them."""
    ends = np.cumsum(_sizes(classes_M, total))
    dealt_M = np.empty_like(values_M)
    for start, order_B, places_B in _placed(classes_M, ends):
        dealt_M[places_B] = values_M[start : start + len(order_B)][order_B]
    return dealt_M, ends


def _sizes(classes_M: np.ndarray, total: int) -> np.ndarray:
    sizes = np.zeros(total, dtype=np.int64)
    for start in range(0, len(classes_M), SORTED):
        sizes += np.bincount(classes_M[start : start + SORTED], minlength=total)
    return sizes


def _placed(classes_M: np.ndarray, ends: np.ndarray) -> Iterator[Block]:
    """For each block its start, its order by class, and the places among all where the so ordered ones belong."""
    free, total = np.concatenate([[0], ends[:-1]]), len(ends)  # the next free place of each class
    in_block = np.arange(min(SORTED, len(classes_M)))
    for start in range(0, len(classes_M), SORTED):
        classes_B = classes_M[start : start + SORTED]  # numpy sorts numbers of 16 bits by their digits, in linear time
        order_B = np.argsort(classes_B, kind="stable")
        of_class = np.bincount(classes_B, minlength=total)
        # Sorted by class, place k of the block goes to the free place of its class plus k less those of classes before.
        shift = free - (np.cumsum(of_class) - of_class)
        yield start, order_B, np.repeat(shift, of_class) + in_block[: len(order_B)]
        free += of_class
