"""Decoded images as uint8 arrays: every mode that Pillow opens, to one or three channels."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

CHANNELS = (1, 3)
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
MOST_PIXELS = 2**27  # 134 million; 400 MB as RGB


class ImageError(ValueError):
    """An image that cannot be read; the message names it."""


def decode(data: bytes | memoryview) -> Image.Image:
    """Open an encoded image that is in memory; the pixels are read by the caller's `load()` (see `open_image`)."""
    return open_image(io.BytesIO(data))


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image of one of the usual formats, whatever its name says; the pixels are read by its `load()`.

    Pillow knows formats that are programs, such as EPS, which it hands to Ghostscript.

    Raises:
        ImageError: another format, or more pixels than an image for training can have.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # which is said below, in words
            image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        raise ImageError(f"it is no image of the formats {', '.join(_formats())}") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"it is too large: {error}") from None
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(
            f"it has {image.width:,}×{image.height:,} pixels, allowed are {MOST_PIXELS:,}: a small file can say so of "
            "itself and fill the memory; shrink it first"
        )
    return image


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Of FORMATS those that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def to_array(image: Image.Image, channels: int) -> np.ndarray:
    """Pixels of an image of any mode.

    The result is what `image.convert("RGB")` (or "L") gives, so that pretrained teachers see what they were trained
    on: alpha is dropped, not composited on a background; colour becomes grey by the ITU-R 601-2 luma. It differs in one
    place: 16-bit grey keeps its upper eight bits, where `convert` would clip. EXIF orientation is not applied.

    Args:
        image: an image of mode 1, L, LA, P, RGB, RGBA, CMYK, YCbCr, HSV, I;16 or I (with 16-bit values).
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 of shape (H, W, channels), contiguous and writable.

    Raises:
        ImageError: the mode has no agreed range (F, or I beyond 16 bits) or no conversion.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels is {channels!r} (allowed: 1 for grey, 3 for RGB)")
    if image.mode.startswith("I"):  # I;16 in several byte orders, or I
        image = _upper_eight_bits(image)
    if image.mode == "F":
        raise ImageError("floating-point images (mode F) have no agreed range: save them with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # same colours; Pillow warns on the direct way
    mode = "RGB" if channels == 3 else "L"
    try:
        pixels = image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        raise ImageError(f"images of mode {image.mode} cannot become {mode}: {error}") from None
    return np.array(pixels, dtype=np.uint8).reshape(image.height, image.width, channels)


def fit(array_HWC: np.ndarray, size_HW: tuple[int, int]) -> np.ndarray:
    """Resize uint8 H×W×C so that it just covers `size_HW` (bilinear, antialiased), then crop the centre."""
    height, width = size_HW
    squeezed = array_HWC[:, :, 0] if array_HWC.shape[2] == 1 else array_HWC
    image = Image.fromarray(squeezed)
    scale = max(height / image.height, width / image.width)
    scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    cropped = image.crop((left, top, left + width, top + height))
    return np.array(cropped, dtype=np.uint8).reshape(height, width, array_HWC.shape[2])


def _upper_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, which Pillow opens as I;16 (or as I in older versions), to L."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError(f"grey values {values.min()}..{values.max()} (mode {image.mode}) are beyond 16 bits")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
