"""The identity of a data set: one hash that is the same for the same data on every machine."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from kdprune.data.images import ImageError, to_array
from kdprune.data.sources.base import Source

SAMPLED = 64


def fingerprint(source: Source) -> str:
    """SHA-256 (hex) of the kind of source, split, length, labels, class names and the pixels of 64 spread images.

    The folder's path and the name are left out. Only the sampled images are decoded, so an edit of another image's
    pixels goes unnoticed; a sampled image that cannot be read counts as "unreadable".
    """
    digest = hashlib.sha256()
    header = [source.kind, source.split, len(source), source.classes]
    digest.update(json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(source.labels, dtype="<i8").tobytes())
    for sample_id in source.spread(SAMPLED):
        digest.update(_pixels(source, sample_id))
    return digest.hexdigest()


def _pixels(source: Source, sample_id: int) -> bytes:
    try:
        pixels = to_array(source[sample_id], 3)
    except ImageError:
        return b"unreadable"
    return repr(pixels.shape).encode() + pixels.tobytes()
