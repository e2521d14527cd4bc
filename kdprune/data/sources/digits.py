"""Digits: 1,797 scans of handwritten digits, 8×8, shipped inside scikit-learn."""

from __future__ import annotations

import numpy as np
from PIL import Image

from kdprune.data.sources.base import Source


class Digits(Source):
    """scikit-learn's `load_digits` as grey 8×8 images, its values 0..16 scaled to 0..255.

    Held out: a quarter of each class (to the nearest whole scan), drawn with the fixed seed 0, so 1,347 scans train and
    450 test. Both splits keep the order of scikit-learn.
    """

    kind = "digits"

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits

        scans = load_digits()
        self._ids = _split_ids(scans.target, split)
        self._images = (scans.images[self._ids] * (255 / 16)).round().astype(np.uint8)
        super().__init__("digits", split, scans.target[self._ids], [str(name) for name in scans.target_names])

    def _open(self, sample_id: int) -> Image.Image:
        return Image.fromarray(self._images[sample_id])

    def describe(self, sample_id: int) -> str:
        return f"scan {self._ids[sample_id]} of scikit-learn's digits"


def _split_ids(labels: np.ndarray, split: str) -> np.ndarray:
    random = np.random.RandomState(0)  # its stream is frozen, which that of default_rng is not
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        ids = random.permutation(np.flatnonzero(labels == label))
        held_out[ids[: round(len(ids) / 4)]] = True
    return np.flatnonzero(held_out == (split == "test"))
