"""The identity of a data set: a hash that is the same for the same data on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import numpy as np

from kdprune.data.images import ImageError, to_array
from kdprune.data.sources.base import Source

SAMPLED = 64


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
    """SHA-256 of the kind of source, split, length, labels, class names, files, and the pixels of 64 spread images.

    Of a folder of images, each file's path below the folder and its size enter; of parquet files, their sizes and
    footers; of another Arrow table, the length of each encoded image. The path and the name of the data set are left
    out.

    What can go unnoticed is an edit of pixels, outside the 64 images, that changes none of these: an image file of the
    same size (a BMP that was painted over), a parquet file whose pages have the same sizes and extremes, an image that
    a table only points to, or any image of data in memory and of `torch/NAME`. Edits of files still change `modified`,
    unless the time was put back. A sampled image that cannot be read counts as "unreadable".
    """
    stamp = source.stamp()
    digest = hashlib.sha256()
    header = [source.kind, source.split, len(source), source.classes]
    digest.update(json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(source.labels, dtype="<i8").tobytes())
    digest.update(stamp.contents)
    for sample_id in source.spread(SAMPLED):
        digest.update(_pixels(source, sample_id))
    return Identity(digest.hexdigest(), stamp.modified.hex())


def _pixels(source: Source, sample_id: int) -> bytes:
    try:
        pixels = to_array(source[sample_id], 3)
    except ImageError:
        return b"unreadable"
    return repr(pixels.shape).encode() + pixels.tobytes()
