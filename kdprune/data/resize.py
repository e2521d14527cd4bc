"""Resizing as Pillow does: of decoded images on the device and of Pillow's own images, to the same pixels.

Pillow's filters are separable, and cover more pixels the more an image shrinks, which is what antialiases. Each axis is
then a matrix of weights, a row for each pixel of the result, and a box of an image two matrix products.

Pillow counts in whole numbers, and so does this: every sum is exact, so that a view depends neither on the batch nor on
the order of a sum. Weights are multiples of 2⁻²². Their upper and their lower 8 bits are multiplied apart: a product
with a pixel, and any sum of up to 500 of them, is below 2²⁴, which float32 holds exactly.

Shapes: N images, C channels, H×W their size, S×T the size of the result, L pixels of an axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

BITS = 22  # of a weight, as in Pillow
_LOW = 8


class Box(NamedTuple):
    """Part of an image in pixels, not necessarily whole ones: one for all images of a batch, or tensors N."""

    top: float | Tensor
    left: float | Tensor
    height: float | Tensor
    width: float | Tensor


class Filter(NamedTuple):
    """A filter, and how far it reaches on both sides."""

    reach: float
    value: Callable[[Tensor], Tensor]
    pillow: Image.Resampling


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys 1981, eq. 4, with a = −1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


FILTERS = {
    "bilinear": Filter(1, _triangle, Image.Resampling.BILINEAR),
    "bicubic": Filter(2, _cubic, Image.Resampling.BICUBIC),
    "lanczos": Filter(3, _lanczos, Image.Resampling.LANCZOS),
}
"""By timm's names."""


def weights(start: Tensor, extent: Tensor, size: int, length: int, interpolation: str) -> Tensor:
    """What each of `length` pixels counts for each of `size` that a part of them becomes.

    Args:
        start, extent: the part, in pixels, N; it lies inside of the axis. Pixels beside it count, too, where the filter
            reaches them, as with Pillow's `resize(box=…)`.

    Returns:
        int32 N×size×length, in units of 2⁻²².
    """
    # MPS has no float64, and is then off by a unit here and there.
    precise = torch.float32 if start.device.type == "mps" else torch.float64
    scale = (extent.to(precise) / size)[:, None, None]
    rows = torch.arange(size, device=start.device, dtype=precise)[:, None] + 0.5
    pixels = torch.arange(length, device=start.device, dtype=precise) + 0.5
    centres = start.to(precise)[:, None, None] + rows * scale
    values = FILTERS[interpolation].value((pixels - centres) / scale.clamp(min=1))
    return (values / values.sum(-1, keepdim=True) * 2**BITS).round().int()


def resize(images_NCHW: Tensor, box: Box, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """A box of each image at one size.

    Args:
        images_NCHW: uint8.
        box: inside of the images.
        size: S, T.
        interpolation: one of FILTERS.

    Returns:
        uint8 N×C×S×T.
    """
    (height, width), device = images_NCHW.shape[-2:], images_NCHW.device
    top, left, box_height, box_width = (_as_tensor(value, device) for value in box)
    rows_NSH = _in_parts(weights(top, box_height, size[0], height, interpolation))
    columns_NTW = _in_parts(weights(left, box_width, size[1], width, interpolation))
    with torch.autocast(device.type, enabled=False):
        # Columns first, and whole values between the two.
        x_NCHT = _whole(images_NCHW.float() @ columns_NTW[:, None].mT, -1)
        return _whole(rows_NSH[:, None] @ x_NCHT.float(), -2).to(torch.uint8)


def resize_image(image: Image.Image, box: Sequence[float], size: tuple[int, int], interpolation: str) -> Image.Image:
    """The same of an image of Pillow's, of mode L or RGB; `box` is top, left, height, width.

    In two calls, because Pillow 13 takes the axis first that is faster, and a filter that overshoots then gives other
    pixels.
    """
    top, left, height, width = box
    chosen = FILTERS[interpolation]
    reach = chosen.reach * max(1.0, height / size[0]) + 1
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(top + height + reach))
    if (first, last) != (0, image.height):
        image = image.crop((0, first, image.width, last))
    # A box that ends at the border must not be beyond it by rounding.
    columns = (left, 0, min(left + width, image.width), image.height)
    image = image.resize((size[1], image.height), chosen.pillow, box=columns)
    rows = (0, top - first, image.width, min(top + height - first, image.height))
    return image.resize((size[1], size[0]), chosen.pillow, box=rows)


def largest_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest part of an image that has the shape of a size, in whole pixels."""
    scale = min(height / size[0], width / size[1])
    return min(height, max(1, round(size[0] * scale))), min(width, max(1, round(size[1] * scale)))


def _as_tensor(value: float | Tensor, device: torch.device) -> Tensor:
    """One value for all images, or N; a tensor made of a number by filling it does not stop the host."""
    return value if isinstance(value, Tensor) else torch.full((1,), float(value), device=device)


def _in_parts(weights_NSL: Tensor) -> Tensor:
    """Upper bits and, below them, lower bits: float32 N×2S×L."""
    high = (weights_NSL + (1 << (_LOW - 1))) >> _LOW
    return torch.cat([high, weights_NSL - (high << _LOW)], 1).float()


def _whole(sums: Tensor, axis: int) -> Tensor:
    """The nearest whole value from 0 to 255, halves upwards, of sums with both parts of weights side by side."""
    high, low = sums.int().chunk(2, axis)
    return (((high << _LOW) + low + (1 << (BITS - 1))) >> BITS).clamp(0, 255)
