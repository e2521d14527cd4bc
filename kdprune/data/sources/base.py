"""What a data set is to kdprune: labelled images that can be asked for by sample id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from kdprune.data.images import ImageError
from kdprune.data.jpeg import is_plain, pixels_of
from kdprune.messages import unknown

log = logging.getLogger("kdprune")

SPLITS = ("train", "test")
MOST_CLASSES = 2**20
HELD_OUT = ("test", "val", "valid", "validation")  # what others call our "test", the first labelled one is taken


class NoHeldOut(ValueError):
    """A data set that has training images, and no held-out ones."""


class Stamp(NamedTuple):
    """What can be told of a source's files without decoding images.

    Attributes:
        contents: hash of names and sizes, the same for a copy elsewhere; part of the fingerprint.
        modified: hash of the times at which the files were last written, which differ between copies; empty where
            there are no files. It tells whether images that were decoded earlier may still be used.
    """

    contents: bytes = b""
    modified: bytes = b""


class Source:
    """One split of a data set: N images that decode when asked for, and their labels.

    A sample id is a position in the split, 0 to N−1. Sources pickle, so that they reach the workers of a loader.
    A new kind of source gives `kind`, `_open` and `describe`, and `stamp` where its images lie in files.

    Attributes:
        name: what the user called the data set.
        split: "train" or "test", our word for held out.
        labels: int64 of shape (N,); −1 where there is no label.
        classes: class names in label order; empty for an unlabelled set.
    """

    kind = "source"

    def __init__(self, name: str, split: str, labels: np.ndarray | Sequence[int], classes: Sequence[str]) -> None:
        self.name = name
        self.split = check_split(split)
        self.labels = np.ascontiguousarray(labels, dtype=np.int64)
        self.classes = [str(name) for name in classes]
        if not len(self.labels):
            raise ValueError(f"{name}: the {split} split holds no images")
        _check_labels(self)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, sample_id: int) -> Image.Image:
        """The decoded image, in the mode and size of its file; EXIF orientation is not applied.

        Raises:
            ImageError: the image cannot be read; the message names it.
            IndexError: no such sample id.
        """
        with self._named(sample_id):
            image = self._open(int(sample_id))
            image.load()
        return image

    def opened(self, sample_id: int) -> Image.Image:
        """The image with its size and mode; what is fast to decode is not decoded yet.

        Raises:
            ImageError, IndexError: as item access.
        """
        with self._named(sample_id):
            image = self._open(int(sample_id))
            if not is_plain(image):  # some change their size when they are loaded
                image.load()
        return image

    def pixels(self, sample_id: int, image: Image.Image, channels: int) -> np.ndarray:
        """Pixels of an image that was `opened`, uint8 H×W×channels: what `to_array` makes of it once it is loaded.

        Raises:
            ImageError: it cannot be decoded, or its mode has no conversion; the message names it.
        """
        with self._named(sample_id):
            try:
                return pixels_of(image, channels)
            except ImageError as error:  # the conversion knows the mode, not the path
                raise ImageError(f"{self.describe(sample_id)}: {error}") from None

    def describe(self, sample_id: int) -> str:
        """Where the image comes from, in words for a person: a path, or a row of a file."""
        return f"image {sample_id} of {self.name} ({self.split})"

    def stamp(self) -> Stamp:
        """What the files say at this moment; empty for data in memory."""
        return Stamp()

    def spread(self, count: int) -> list[int]:
        """Up to `count` sample ids, evenly spread from the first to the last."""
        ids = np.linspace(0, len(self) - 1, min(count, len(self))).round()
        return [int(sample_id) for sample_id in np.unique(ids)]

    @contextmanager
    def _named(self, sample_id: int) -> Iterator[None]:
        """What goes wrong with an image is said with its name."""
        if not 0 <= sample_id < len(self):
            raise IndexError(f"{self.name}: sample id {sample_id} is not in 0..{len(self) - 1} ({self.split} split)")
        try:
            yield
        except ImageError as error:
            if str(error).startswith("it "):  # of an image that did not know its own name
                raise ImageError(f"{self.describe(sample_id)} cannot be decoded: {error}") from None
            raise
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
            raise ImageError(f"{self.describe(sample_id)} cannot be decoded: {error}") from error

    def _open(self, sample_id: int) -> Image.Image:
        """The image, opened; it may be left to the caller to load it."""
        raise NotImplementedError


def check_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    return split


def check_same_classes(name: str, train: Sequence[str], test: Sequence[str]) -> None:
    """Refuse a held-out split whose class names are not those of the training split.

    Raises:
        ValueError: with both counts and the first names that differ.
    """
    if list(train) == list(test):
        return
    message = f"{name}: the train split has {len(train)} classes and the held-out split has {len(test)}"
    for where, extra in (("train", set(train) - set(test)), ("held out", set(test) - set(train))):
        if extra:
            some = ", ".join(sorted(extra)[:5]) + (", …" if len(extra) > 5 else "")
            message += f"; only in {where}: {some}"
    raise ValueError(message if set(train) != set(test) else f"{message}; the same names stand in another order")


def count_classes(labels: np.ndarray) -> list[str]:
    """Class names for labels without names: "0", "1", … up to the largest label.

    Raises:
        ValueError: a label that is no class: an identifier, or a measured value.
    """
    largest = int(labels.max(initial=-1))
    if largest >= MOST_CLASSES:
        raise ValueError(
            f"label {largest} given, allowed are classes from 0 to {MOST_CLASSES - 1:,}; number the classes from 0"
        )
    return [str(label) for label in range(largest + 1)]


def _check_labels(source: Source) -> None:
    wrong = np.flatnonzero((source.labels < -1) | (source.labels >= max(len(source.classes), 0)))
    if len(wrong):
        where = source.describe(int(wrong[0]))
        raise ValueError(
            f"{source.name}: label {source.labels[wrong[0]]} of {where} is not in 0..{len(source.classes) - 1} "
            f"(or −1 for no label); {len(wrong):,} of {len(source):,} {source.split} labels are out of range"
        )
