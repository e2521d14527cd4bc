"""The identity of a data set: a hash that is the same for the same data on every machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import NamedTuple

import numpy as np

from kdprune.data.images import ImageError, to_array
from kdprune.data.sources.base import Source
from kdprune.data.sources.indexable import Indexable

SAMPLED = 64
WHOLE_BYTES = 2**28  # pixels of data in memory, or of somebody's own class, that are all read: a second or two


class Identity(NamedTuple):
    """What the data is.

    Attributes:
        fingerprint: of the contents, hex.
        modified: hash of the files' times of modification, hex, empty for data in memory. For what is made of the
            pixels on this machine and kept, and for nothing else: a copy of the data has other times.
    """

    fingerprint: str
    modified: str


def identify(source: Source) -> Identity:
    """SHA-256 of the kind of source, split, length, labels, class names, files, and the pixels of images.

    Those are 64 spread ones; or all of them where no files speak for the others and they are within 256 MiB.

    Of a folder of images, each file's path below the folder and its size enter; of parquet files, their sizes and
    footers; of another Arrow table, the length of each encoded image. The path and the name of the data set are left
    out.

    What can go unnoticed is an edit of pixels, outside the 64 images, that changes none of these: an image file of the
    same size (a BMP that was painted over), a parquet file whose pages have the same sizes and extremes, an image that
    a table only points to, or any image of `torch/NAME` and of larger data in memory. Edits of files still change
    `modified`, unless the time was put back. A sampled image that cannot be read counts as "unreadable".
    """
    stamp = source.stamp()
    digest = hashlib.sha256()
    header = [source.kind, source.split, len(source), source.classes]
    digest.update(json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(source.labels, dtype="<i8").tobytes())
    digest.update(stamp.contents)
    for sample_id in _identifying(source):
        digest.update(_pixels(source, sample_id))
    return Identity(digest.hexdigest(), stamp.modified.hex())


def _identifying(source: Source) -> list[int]:
    """Sample ids of the images whose pixels say what the data is."""
    spread = source.spread(SAMPLED)
    if source.kind != Indexable.kind:
        return spread
    largest = 0
    for sample_id in spread:
        with contextlib.suppress(ImageError):
            image = source[sample_id]
            largest = max(largest, 3 * image.width * image.height)
    return list(range(len(source))) if largest * len(source) <= WHOLE_BYTES else spread


def _pixels(source: Source, sample_id: int) -> bytes:
    try:
        pixels = to_array(source[sample_id], 3)
    except ImageError:
        return b"unreadable"
    return repr(pixels.shape).encode() + pixels.tobytes()
