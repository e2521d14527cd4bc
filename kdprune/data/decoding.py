"""Decode a whole source in threads, in order, a chunk at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from kdprune.data.images import ImageError, fit, to_array
from kdprune.data.sources.base import Source

CHUNK_BYTES = 2**21  # decoded at a time by a worker
SMALL_PIXELS = 64 * 64  # up to this size Python, not Pillow, takes the time, and threads only get in each other's way


DECODING_VERSION = 1
"""Raised by every change after which an image file gives other pixels; what was decoded before is then left alone."""


@dataclass(frozen=True)
class Decoding:
    """How the images of a split are decoded, once.

    Attributes:
        folder: where the results are kept.
        bad_images: "fail" at the first unreadable image, or "drop" those that cannot be read.
        workers: at most this many threads (default: one for each core); small images are decoded by one.
        progress: whether to show a bar.
    """

    folder: Path
    bad_images: Literal["fail", "drop"] = "fail"
    workers: int | None = None
    progress: bool = True


@dataclass
class Chunk:
    """Consecutive images: uint8 (n, C, H, W), the errors of those that cannot be read, how many were resized."""

    pixels: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)
    resized: int = 0


def decode_all(source: Source, shape: tuple[int, int, int, int], workers: int | None) -> Iterator[Chunk]:
    """Chunks in the order of their ids; at most a few wait to be written."""
    each = int(np.prod(shape[1:]))
    step = max(1, min(512, CHUNK_BYTES // each))
    starts = range(0, shape[0], step)
    workers = 1 if shape[2] * shape[3] <= SMALL_PIXELS else max(1, _cores() if workers is None else workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[Future[Chunk]] = deque()
    try:
        for start in starts:
            waiting.append(pool.submit(_decode, source, range(start, min(start + step, shape[0])), shape))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(source: Source, ids: range, shape: tuple[int, int, int, int]) -> Chunk:
    _, channels, *size = shape
    chunk = Chunk(np.zeros((len(ids), channels, *size), dtype=np.uint8))
    for place, sample_id in enumerate(ids):
        try:
            pixels_HWC = _pixels(source, sample_id, channels)
        except ImageError as error:
            chunk.bad[sample_id] = str(error)
            continue
        if pixels_HWC.shape[:2] != tuple(size):
            pixels_HWC = fit(pixels_HWC, (size[0], size[1]))
            chunk.resized += 1
        chunk.pixels[place] = pixels_HWC.transpose(2, 0, 1)
    return chunk


def _pixels(source: Source, sample_id: int, channels: int) -> np.ndarray:
    image = source[sample_id]
    try:
        return to_array(image, channels)
    except ImageError as error:  # the conversion knows the mode, not the path
        raise ImageError(f"{source.describe(sample_id)}: {error}") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
