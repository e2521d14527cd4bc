"""Resizing as Pillow does: the same pixels from decoded images on the device and from images that workers open.

Pillow's filters are separable, and cover more pixels the more an image shrinks, which is what antialiases. Each axis is
then a matrix of weights, a row for each pixel of the result, and a box of an image two matrix products.

Shapes: N images, C channels, H×W their size, S×T the size of the result, L pixels of an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

WEIGHT = 2**15
"""Weights are multiples of its inverse. Their products with pixels, and all sums of these, are then whole multiples
below 2²⁴, which float32 holds exactly: the result depends neither on the order of a sum nor on the batch."""
_FINE = 2**18  # the same for values of a filter before they are normalised, so that their sum is exact, too


class Box(NamedTuple):
    """Part of an image in pixels, not necessarily whole ones: of one image or, as tensors N, of each of a batch."""

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
        start, extent: the part, in pixels, float32 N; it lies inside of the axis. Pixels beside it count, too, where
            the filter reaches them, as with Pillow's `resize(box=…)`.

    Returns:
        float32 N×size×length, multiples of 1 / WEIGHT; a row's sum is 1 but for their rounding.
    """
    scale = (extent / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(length, device=start.device) + 0.5
    values = FILTERS[interpolation].value((pixel - centre) / scale.clamp(min=1))
    fine = (values * _FINE).round().int()
    total = fine.sum(-1, keepdim=True)
    return (fine * float(WEIGHT) / total).round() / WEIGHT


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
    with torch.autocast(device.type, enabled=False):
        rows_NSH = weights(top, box_height, size[0], height, interpolation)
        columns_NTW = weights(left, box_width, size[1], width, interpolation)
        # Columns first, and whole values between the two, as in Pillow.
        x_NCHT = _whole(images_NCHW.float() @ columns_NTW[:, None].mT)
        return _whole(rows_NSH[:, None] @ x_NCHT).to(torch.uint8)


def resize_image(image: Image.Image, box: Sequence[float], size: tuple[int, int], interpolation: str) -> Image.Image:
    """The same of an image of Pillow's, of mode L or RGB; `box` is top, left, height, width."""
    top, left, height, width = box
    # A box that ends at the border must not be beyond it by rounding.
    corners = (left, top, min(left + width, image.width), min(top + height, image.height))
    return image.resize((size[1], size[0]), FILTERS[interpolation].pillow, box=corners)


def largest_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest part of an image that has the shape of a size, in whole pixels."""
    scale = min(height / size[0], width / size[1])
    return min(height, max(1, round(size[0] * scale))), min(width, max(1, round(size[1] * scale)))


def _as_tensor(value: float | Tensor, device: torch.device) -> Tensor:
    """One value for all images, or N; a tensor made of a number by filling it does not stop the host."""
    return value.float() if isinstance(value, Tensor) else torch.full((1,), float(value), device=device)


def _whole(x: Tensor) -> Tensor:
    """The nearest whole value from 0 to 255, halves upwards."""
    return (x + 0.5).floor_().clamp_(0, 255)
