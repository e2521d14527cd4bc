"""The decoded training set: one uint8 file, decoded once, memory-mapped, and shared by all processes."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from tqdm.auto import tqdm

from kdprune.data.decoding import decode_all
from kdprune.data.images import ImageError
from kdprune.data.sources.base import Source
from kdprune.files import read_json, write_json, write_whole
from kdprune.messages import unknown

log = logging.getLogger("kdprune")

ON_ERROR = ("fail", "drop")
FORMAT = 1


class ImageStore:
    """All images of a training set, decoded.

    The map is private: an accidental write into `images` changes neither the file nor another process. Pickling sends
    the path, not the pixels.

    Attributes:
        images: uint8 of shape (N, C, H, W), read from disk as pages are touched.
        bad_ids: int64, ascending: images that could not be read; their pixels are zero.
    """

    def __init__(self, path: Path, shape_NCHW: tuple[int, int, int, int], bad_ids: list[int]) -> None:
        self.path = path
        self.images = _map(path, shape_NCHW)
        self.bad_ids = np.array(bad_ids, dtype=np.int64)

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path, tuple[int, ...], list[int]]]:
        return ImageStore, (self.path, tuple(self.images.shape), self.bad_ids.tolist())


def store_size(source: Source, channels: int, budget_bytes: int) -> tuple[int, int] | None:
    """The (H, W) of a store for `source`, or None where images are better decoded as they are needed.

    A store is made if 256 images spread over the source (those that can be read) all have one size and N·C·H·W bytes
    are within the budget.
    """
    size: tuple[int, int] | None = None
    for sample_id in source.spread(256):
        try:
            image = source[sample_id]
        except ImageError:
            continue
        size = size or (image.height, image.width)
        if (image.height, image.width) != size or len(source) * channels * size[0] * size[1] > budget_bytes:
            return None
    return size


def open_store(
    source: Source,
    size_HW: tuple[int, int],
    channels: int,
    cache_dir: str | Path,
    fingerprint: str,
    on_error: str = "fail",
    workers: int | None = None,
    progress: bool = True,
) -> ImageStore:
    """Open the store of `source` in `cache_dir`; decode it first if it is not there, or not whole.

    An image of another size is resized (short side) and cropped (centre). Several processes may call this at once: each
    builds its own file and puts it in place in one step.

    Args:
        size_HW: height and width in pixels, as from `store_size`.
        channels: 1 or 3.
        fingerprint: of the source; a store of another fingerprint is never opened.
        on_error: "fail" at the first unreadable image, or "drop" it (its pixels are zero, its id is in `bad_ids`).
        workers: at most this many decoding threads (default: one for each core); small images are decoded by one.
        progress: whether to show a bar.

    Raises:
        ImageError: an unreadable image under "fail", naming its path.
        ValueError: another `on_error`.
        OSError: no space in `cache_dir`; no half-written file is left behind.
    """
    if on_error not in ON_ERROR:
        raise ValueError(unknown("on_error", on_error, ON_ERROR))
    shape = (len(source), channels, *size_HW)
    path = Path(cache_dir).expanduser().absolute() / f"{fingerprint[:32]}-{channels}x{size_HW[0]}x{size_HW[1]}.u8"
    bad = _valid(path, shape, fingerprint)
    if bad is None or (bad and on_error == "fail"):  # under "fail" look again: the images may have been mended
        bad = _build(source, shape, path, fingerprint, on_error, workers, progress)
    if bad:
        log.warning(
            "%s: %d unreadable images are dropped, the first is %s", source.name, len(bad), source.describe(bad[0])
        )
    return ImageStore(path, shape, bad)


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _valid(path: Path, shape: tuple[int, ...], fingerprint: str) -> list[int] | None:
    """The bad ids of a whole store of this very data; None if there is none."""
    try:
        size, about = path.stat().st_size, read_json(_sidecar(path))
        whole = size == int(np.prod(shape)) and about["format"] == FORMAT
        same = about["fingerprint"] == fingerprint and about["shape_NCHW"] == list(shape)
        return [int(sample_id) for sample_id in about["bad_ids"]] if whole and same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(
    source: Source,
    shape: tuple[int, int, int, int],
    path: Path,
    fingerprint: str,
    on_error: str,
    workers: int | None,
    progress: bool,
) -> list[int]:
    bad: dict[int, str] = {}
    resized = 0

    def write(file: BinaryIO) -> None:
        nonlocal resized
        with tqdm(total=len(source), desc="decoding", unit=" images", disable=not progress) as bar:
            for chunk in decode_all(source, shape, workers):
                if chunk.bad and on_error == "fail":
                    raise ImageError(next(iter(chunk.bad.values())))
                file.write(chunk.pixels.data)
                bad.update(chunk.bad)
                resized += chunk.resized
                bar.update(len(chunk.pixels))
        _sidecar(path).unlink(missing_ok=True)  # it speaks of the file that is about to be replaced

    _check_space(path, int(np.prod(shape)))
    try:
        write_whole(path, write)
        about = {"format": FORMAT, "fingerprint": fingerprint, "shape_NCHW": list(shape), "bad_ids": sorted(bad)}
        write_json(_sidecar(path), {**about, "source": source.name, "errors": list(bad.values())[:100]})
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_space(path, int(np.prod(shape))) from error
    if resized:
        size = f"{shape[2]}×{shape[3]}"
        log.warning("%s: %d of %d images were not %s: resized and cropped", source.name, resized, len(source), size)
    return sorted(bad)


def _map(path: Path, shape: tuple[int, int, int, int]) -> torch.Tensor:
    return torch.from_file(str(path), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(shape)


def _check_space(path: Path, needed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < needed:
        raise _no_space(path, needed)


def _no_space(path: Path, needed: int) -> OSError:
    free = shutil.disk_usage(path.parent).free
    return OSError(
        errno.ENOSPC,
        f"the decoded images take {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free; "
        "choose another cache folder or free some space",
        str(path.parent),
    )
