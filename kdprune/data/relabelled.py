"""The same images under other labels, such as labels that were flipped on purpose. Shapes: N samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from kdprune.data.dataset import Data
from kdprune.data.fingerprint import identify
from kdprune.data.sources.base import Source, Stamp
from kdprune.data.split import Split


class Relabelled(Source):
    """A source with other labels. Its fingerprint is that of data which had these labels from the start."""

    def __init__(self, source: Source, labels: np.ndarray, classes: Sequence[str]) -> None:
        self._source = source
        self.kind = source.kind  # a part of the fingerprint, and it decides which pixels are
        super().__init__(source.name, source.split, labels, classes)

    def _open(self, sample_id: int) -> Image.Image:
        return self._source._open(sample_id)

    def describe(self, sample_id: int) -> str:
        return self._source.describe(sample_id)

    def stamp(self) -> Stamp:
        return self._source.stamp()


def with_labels(data: Data, labels_N: np.ndarray, classes: Sequence[str]) -> Data:
    """The data with other training labels, and perhaps with more classes. No image is decoded again.

    The fingerprint sees the labels, so that nothing made of one labelling is ever found for another. The validation
    part stays as it was drawn by the labels of before.

    Args:
        labels_N: int64, -1 where there is none.
        classes: their names, in label order; the held-out part gets them too.

    Raises:
        ValueError: another number of labels; a label out of range.
    """
    if len(labels_N) != len(data.train):
        raise ValueError(f"{len(labels_N):,} labels given for {len(data.train):,} samples")
    train, fingerprint = _relabelled(data.train, labels_N, classes)
    test, test_fingerprint = data.test, data.test_fingerprint
    if test is not None and list(classes) != data.classes:
        test, test_fingerprint = _relabelled(test, test.labels, classes)
    return replace(data, train=train, test=test, fingerprint=fingerprint, test_fingerprint=test_fingerprint)


def _relabelled(split: Split, labels_N: np.ndarray, classes: Sequence[str]) -> tuple[Split, str]:
    source = Relabelled(split.source, labels_N, classes)
    return replace(split, source=source), identify(source).fingerprint
