"""A part of the training images as the held-out split of data that has none."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from kdprune.data.sources.base import Source
from kdprune.data.split import Split


class Part(Source):
    """Some images of a source, as a held-out split. Sample ids are positions among them."""

    kind = "part"

    def __init__(self, source: Source, ids: np.ndarray) -> None:
        self._source, self._ids = source, np.asarray(ids, dtype=np.int64)
        super().__init__(source.name, "test", source.labels[self._ids], source.classes)

    def describe(self, sample_id: int) -> str:
        return self._source.describe(int(self._ids[sample_id]))

    def _open(self, sample_id: int) -> Image.Image:
        return self._source[int(self._ids[sample_id])]


def held_out_part(train: Split, ids: np.ndarray, fingerprint: str) -> tuple[Split, str]:
    """The readable images `ids` of the training split as a split of their own, and its fingerprint.

    Args:
        train: the training split.
        ids: int64, ascending; nothing may be trained on them.
        fingerprint: of the training split.
    """
    images = None if train.images is None else train.images[ids]
    digest = hashlib.sha256(fingerprint.encode() + ids.astype("<i8").tobytes())
    return Split(Part(train.source, ids), train.channels, images, np.array([], dtype=np.int64)), digest.hexdigest()
