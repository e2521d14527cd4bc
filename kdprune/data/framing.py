"""How a whole image becomes the input of a model in evaluation: timm's `create_transform(is_training=False)`.

An image is scaled, and its centre cut out; what is scaled to less than the input is padded. Both in one step: the box
that is left of the image, and where it lies in the input.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdprune.data.resize import Box, resize, resize_image
from kdprune.data.size import Size, height_width

CROP_MODES = ("center", "squash", "border")


class InputSize(Protocol):
    """The part of a model's input that decides how an image is cut and scaled for it."""

    @property
    def size(self) -> Size: ...

    @property
    def interpolation(self) -> str: ...

    @property
    def crop_pct(self) -> float: ...

    @property
    def crop_mode(self) -> str: ...

    @property
    def mean(self) -> tuple[float, ...]: ...


class Framing(NamedTuple):
    """What is done with images of one height and width.

    Attributes:
        box: top, left, height, width in pixels of the part that is shown.
        scaled: its height and width in the input.
        place: its top and left there; what lies beside it is filled.
    """

    box: tuple[float, float, float, float]
    scaled: tuple[int, int]
    place: tuple[int, int]


def framing(height: int, width: int, spec: InputSize) -> Framing:
    """How images of a size are framed.

    With the input's size over `crop_pct`, rounded down, as target: "center" scales the image so that it just covers the
    target, "border" so that it just fits in, "squash" to the target without regard to its shape. Then the centre of the
    input's size is kept.
    """
    size = height_width(spec.size)
    target = tuple(math.floor(side / spec.crop_pct) for side in size)
    if spec.crop_mode == "squash":
        resized = target
    elif spec.crop_mode == "center" and target[0] == target[1]:  # torchvision's rule, which rounds down
        short = target[0]
        resized = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    else:
        ratios = height / target[0], width / target[1]
        ratio = min(ratios) if spec.crop_mode == "center" else max(ratios)
        resized = max(1, round(height / ratio)), max(1, round(width / ratio))
    rows = _axis(height, resized[0], size[0])
    columns = _axis(width, resized[1], size[1])
    return Framing((rows[0], columns[0], rows[1], columns[1]), (rows[2], columns[2]), (rows[3], columns[3]))


def _axis(length: int, resized: int, size: int) -> tuple[float, float, int, int]:
    """Start and extent of the part that is shown, its pixels in the input, and the first of them."""
    shown = min(resized, size)
    skipped = round((resized - shown) / 2)
    return skipped * length / resized, shown * length / resized, shown, (size - shown) // 2


def frame(images_NCHW: Tensor, spec: InputSize) -> Tensor:
    """Whole images of one size, cut and scaled for a model: uint8 N×C×H×W at the input's size."""
    box, scaled, (top, left) = framing(images_NCHW.shape[-2], images_NCHW.shape[-1], spec)
    count, colour = len(images_NCHW), _colour(spec)
    images_NCHW = images_NCHW.expand(-1, framed_channels(images_NCHW.shape[1], spec), -1, -1)
    if box != (0, 0, *scaled):
        images_NCHW = resize(images_NCHW, Box(*box), scaled, spec.interpolation)
    size = height_width(spec.size)
    if scaled == size:
        return images_NCHW
    fill_C11 = torch.tensor(colour, dtype=torch.uint8, device=images_NCHW.device)[:, None, None]
    framed = fill_C11.expand(count, images_NCHW.shape[1], *size).clone()
    framed[..., top : top + scaled[0], left : left + scaled[1]] = images_NCHW
    return framed


def frame_image(image: Image.Image, spec: InputSize) -> np.ndarray:
    """The same of an image of Pillow's, of mode L or RGB with `framed_channels`: uint8 H×W×C."""
    box, scaled, (top, left) = framing(image.height, image.width, spec)
    channels = len(image.getbands())
    framed = np.empty((*height_width(spec.size), channels), dtype=np.uint8)
    framed[:] = _colour(spec)
    pixels = np.asarray(resize_image(image, box, scaled, spec.interpolation))
    framed[top : top + scaled[0], left : left + scaled[1]] = pixels.reshape(*scaled, channels)
    return framed


def framed_channels(channels: int, spec: InputSize) -> int:
    """Channels of what is framed: grey images get three with a border in a model's mean colour."""
    return max(channels, len(_colour(spec)))


def _colour(spec: InputSize) -> tuple[int, ...]:
    """Of what lies beside an image: one value for each channel, or for all."""
    return tuple(round(255 * mean) for mean in spec.mean) if spec.crop_mode == "border" else (0,)
