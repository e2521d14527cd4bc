"""One part of a data set, with what was found when it was opened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kdprune.data.sources.base import Source


@dataclass(frozen=True)
class Split:
    """The training part of a data set, or the held-out one.

    Attributes:
        source: the images as they are on disk or in memory, and their labels.
        channels: 1 for grey, 3 for RGB: what images are decoded to.
        images: decoded, uint8 N×C×H×W, memory-mapped or on a device; None: workers decode.
        unreadable: sample ids of images that cannot be read, int64, ascending.
    """

    source: Source
    channels: int
    images: Tensor | None
    unreadable: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> np.ndarray:
        """Class ids, int64 N; -1 where there is no label."""
        return self.source.labels

    @property
    def classes(self) -> list[str]:
        """Class names in label order; empty for an unlabelled part."""
        return self.source.classes

    @property
    def readable(self) -> np.ndarray:
        """Sample ids of all images that can be read, int64, ascending."""
        if not len(self.unreadable):
            return np.arange(len(self))
        can_be_read = np.ones(len(self), dtype=bool)
        can_be_read[self.unreadable] = False
        return np.flatnonzero(can_be_read)

    def spread(self, count: int) -> np.ndarray:
        """Sample ids of readable images among `count` that are evenly spread over all, int64, ascending."""
        return np.setdiff1d(self.source.spread(count), self.unreadable)
