"""Plain JPEG files by torchvision's decoder: Pillow's pixels in two thirds of the time, and without a copy.

Pillow opens every file first, so what it refuses stays refused in its words, and it decodes whatever is not plain:
CMYK, several pictures in one file, colour that is to become grey, data that ends too early. torchvision calls its
decoder deprecated from 0.29 on; a version without it leaves all to Pillow.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.utils.data import get_worker_info

from kdprune.data.images import decode, to_array

log = logging.getLogger("kdprune")

Decoder = Callable[[Tensor, str], Tensor]
MODES = {("RGB", 3): "RGB", ("L", 3): "RGB", ("L", 1): "GRAY"}
"""What is decoded of an image of a mode to a number of channels, by torchvision's names."""


def pixels_of(image: Image.Image, channels: int) -> np.ndarray:
    """What `to_array` gives of an opened image once it is loaded, uint8 H×W×channels."""
    pixels_HWC = decode_jpeg(image, channels)
    if pixels_HWC is None:
        image.load()
        return to_array(image, channels)
    return pixels_HWC


def decode_jpeg(image: Image.Image, channels: int) -> np.ndarray | None:
    """Pixels of an image that was opened in memory and not loaded; None where Pillow has to decode it.

    Args:
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 H×W×channels, contiguous and writable.
    """
    mode = MODES.get((image.mode, channels))
    if mode is None or not is_plain(image) or (decoder := jpeg_decoder()) is None:
        return None
    assert isinstance(image, JpegImageFile)
    assert isinstance(image.fp, io.BytesIO)
    try:
        with _silenced():
            pixels_CHW = decoder(torch.frombuffer(image.fp.getbuffer(), dtype=torch.uint8), mode)
    except RuntimeError:  # Pillow knows better, or says what is wrong
        return None
    pixels_HWC = pixels_CHW.permute(1, 2, 0).contiguous().numpy()  # it lies so in memory already
    return pixels_HWC if pixels_HWC.shape == (image.height, image.width, channels) else None


def is_plain(image: Image.Image) -> bool:
    """Whether an image is one of a JPEG file in memory that nobody has touched yet."""
    return (
        isinstance(image, JpegImageFile)
        and image.format == "JPEG"  # MPO is a kind of it
        and bool(image.tile)
        and isinstance(image.fp, io.BytesIO)
    )


@lru_cache(maxsize=1)
def jpeg_decoder() -> Decoder | None:
    """torchvision's decoder, of encoded bytes and a mode; None, said once, where none gives Pillow's pixels.

    Importing torchvision takes a second: before workers are forked, this is done for all of them.
    """
    try:
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as by_torchvision

        def decoder(data: Tensor, mode: str) -> Tensor:
            return by_torchvision(data, ImageReadMode[mode])

        differs = any(not np.array_equal(*pair) for pair in _both(decoder))
    except (ImportError, RuntimeError, AttributeError) as error:  # built without JPEG, or a version that has lost it
        log.warning("torchvision decodes no JPEG here, so Pillow does, which is slower: %s", error)
        return None
    if differs:
        log.warning("torchvision decodes JPEG to other pixels than Pillow here, so Pillow does, which is slower")
        return None
    return decoder


@contextmanager
def _silenced() -> Iterator[None]:
    """Without what libjpeg writes to stderr of data that it mends, of which Pillow says nothing, and nobody the file.

    Only in a loader's worker: elsewhere, other threads may have something to say.
    """
    if get_worker_info() is None:
        yield
        return
    stderr = os.dup(2)
    try:
        os.dup2(_nothing(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@lru_cache(maxsize=1)
def _nothing() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _both(decoder: Decoder) -> list[tuple[np.ndarray, np.ndarray]]:
    """Small images by both decoders: their libraries may differ in how they scale colour up, and in rounding."""
    y, x = np.mgrid[:37, :53]
    pixels_HWC = np.stack([x * 37 + y * y, x * x // 3 + y * 11, x * y], -1).astype(np.uint8)
    made = []
    for more in ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"subsampling": 2, "progressive": True}):
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "JPEG", quality=85, **more)
        decoded_CHW = decoder(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8), "RGB")
        made.append((decoded_CHW.permute(1, 2, 0).numpy(), to_array(decode(file.getvalue()), 3)))
    return made
