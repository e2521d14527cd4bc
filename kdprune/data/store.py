"""The decoded images of a split: one uint8 file, decoded once, memory-mapped, and shared by all processes."""

from __future__ import annotations

import errno
import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from kdprune.artefact import Artefact, damage, key_hash
from kdprune.data.decoding import DECODING_VERSION, Decoding, decode_all
from kdprune.data.fingerprint import Identity
from kdprune.data.images import ImageError
from kdprune.data.sources.base import Source
from kdprune.files import FULL, NoSpace, check_space, in_bytes, write_json, write_whole
from kdprune.outside import read_json

log = logging.getLogger("kdprune")

CHECKED = 2**30
"""Bytes up to which a store is compared with its digest whenever it is opened, which takes a tenth of a second; larger
ones are by `kdprune verify`."""

IMAGES, UNREADABLE = "images.u8", "unreadable.json"
ADVICE = "choose another folder with --data.root, or free some space"

Shape = tuple[int, int, int, int]


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
    source: Source, identity: Identity, size_HW: tuple[int, int], channels: int, decoding: Decoding
) -> tuple[Tensor, np.ndarray]:
    """Map the decoded images of `source`; decode them first if they are not there, or not whole.

    An image of another size is resized (short side) and cropped (centre). Of several processes that ask at once one
    decodes, and the others wait for it.

    Args:
        identity: of the source; a store of other contents, or of files that were written since, is not opened.
        size_HW: height and width in pixels, as from `store_size`.
        channels: 1 or 3.

    Returns:
        images: uint8 N×C×H×W, read from disk as pages are touched. The map is private: an accidental write into it
            changes neither the file nor another process.
        unreadable: int64, ascending: images that could not be read, with "drop"; their pixels are zero.

    Raises:
        ImageError: an unreadable image under "fail", naming its path.
        OSError: no space; no half-written file is left behind.
    """
    shape = (len(source), channels, *size_HW)
    folder, key = kept_in(source, identity, decoding, "x".join(map(str, shape[1:])), {"shape": list(shape)})
    artefact = Artefact(folder, "decoded images", key)
    unreadable = _finished(artefact, shape, decoding)
    if unreadable is None:
        with artefact.owned():
            unreadable = _finished(artefact, shape, decoding)  # another process may have made it meanwhile
            if unreadable is None:
                unreadable = _decode(artefact, source, shape, decoding)
    images = torch.from_file(str(folder / IMAGES), shared=False, size=math.prod(shape), dtype=torch.uint8)
    return images.view(shape), np.array(unreadable, dtype=np.int64)


def kept_in(
    source: Source, identity: Identity, decoding: Decoding, kind: str, key: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """The folder and the whole key of something that is made by decoding a source.

    The folder's name ends with a hash of the key, so that data that was edited, or another set of the same name, gets a
    folder of its own and the old one stays for those who still map it.
    """
    key = {**identity._asdict(), "decoding": DECODING_VERSION, **key}
    name = re.sub(r"[^\w.-]+", "_", Path(source.name).name)[-60:]
    return decoding.folder.expanduser().absolute() / f"{name}-{source.split}-{kind}-{key_hash(key)[:12]}", key


def _finished(artefact: Artefact, shape: Shape, decoding: Decoding) -> list[int] | None:
    """Ids of the unreadable images of a finished store; None if there is none that may be used."""
    try:
        if not artefact.finished or (artefact.folder / IMAGES).stat().st_size != math.prod(shape):
            return None
        if math.prod(shape) <= CHECKED and (changed := damage(artefact.folder)):
            log.warning("%s: the images are decoded again", "; ".join(changed))
            return None
        unreadable = [int(sample_id) for sample_id in read_json(artefact.folder / UNREADABLE)["ids"]]
    except (OSError, ValueError, KeyError, TypeError):  # torn: it is made again
        return None
    # Under "fail" the images are looked at again: what could not be read may have been a disk that was away.
    return None if unreadable and decoding.bad_images == "fail" else unreadable


def _decode(artefact: Artefact, source: Source, shape: Shape, decoding: Decoding) -> list[int]:
    """Make the store, as its only owner; ids of unreadable images."""
    folder, needed = artefact.folder, math.prod(shape)
    for left_behind in folder.glob(f".{IMAGES}.*.tmp"):  # by a process that was killed
        left_behind.unlink()
    check_space(folder, needed, "the decoded images", ADVICE)
    errors: dict[int, str] = {}

    def write(file: BinaryIO) -> None:
        errors.update(_write_pixels(file, source, shape, decoding))
        for name in (UNREADABLE, IMAGES):  # of a store that is about to be replaced
            (folder / name).unlink(missing_ok=True)
        artefact.reopen()

    try:
        write_whole(folder / IMAGES, write)
        write_json(folder / UNREADABLE, {"ids": sorted(errors), "errors": list(errors.values())[:100]})
        artefact.finish([IMAGES, UNREADABLE])
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = in_bytes(shutil.disk_usage(folder).free)
        message = f"the decoded images need {in_bytes(needed)}, {free} are free: {ADVICE}"
        raise NoSpace(errno.ENOSPC, message, str(folder)) from error
    return sorted(errors)


def _write_pixels(file: BinaryIO, source: Source, shape: Shape, decoding: Decoding) -> dict[int, str]:
    """Decode all images into a file; ids and errors of those that cannot be read."""
    errors: dict[int, str] = {}
    resized = 0
    with tqdm(total=len(source), desc="decoding", unit=" images", disable=not decoding.progress) as bar:
        for chunk in decode_all(source, shape, decoding.workers):
            if chunk.bad and decoding.bad_images == "fail":
                raise ImageError(next(iter(chunk.bad.values())))
            file.write(chunk.pixels.data)
            errors.update(chunk.bad)
            resized += chunk.resized
            bar.update(len(chunk.pixels))
    if resized:
        size = f"{shape[2]}×{shape[3]}"
        log.warning("%s: %d of %d images were not %s: resized and cropped", source.name, resized, len(source), size)
    return errors
