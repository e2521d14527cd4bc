"""RandAugment (Cubuk et al. 2020) and TrivialAugment (Müller & Hutter 2021), as torchvision defines them.

Operations, magnitudes and their bins are those of torchvision's `RandAugment` and `TrivialAugmentWide`, with bilinear
interpolation. Every sample has operations of its own, and no index may leave the device. So each kind of operation is
computed for all samples and kept where it was drawn: whatever maps a value to a value is one table of 256 for each
sample and channel, and all that moves pixels is one affine map.

Shapes: N samples of the batch, C channels, V = 256 values of a channel, K operations, D draws.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kdprune.data.colour import luma
from kdprune.data.draws import BIN, OPERATIONS, SIGNS

BINS = 31
(IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, BRIGHTNESS, COLOUR, CONTRAST, SHARPNESS,
 POSTERIZE, SOLARIZE, AUTOCONTRAST, EQUALIZE) = range(14)  # fmt: skip
COUNT = EQUALIZE + 1


def randaugment(n: int, m: int, x_NCHW: Tensor, u_ND: Tensor) -> Tensor:
    """`n` operations one after the other, each drawn anew, of magnitude `m` of 0 to 30."""
    operation_NK, is_negative_NK = _operations(u_ND)
    table = _magnitudes(False, *x_NCHW.shape[-2:], u_ND.device)
    for k in range(n):
        magnitude_N = table[:, m][operation_NK[:, k]]
        x_NCHW = apply(x_NCHW, operation_NK[:, k], _signed(magnitude_N, operation_NK[:, k], is_negative_NK[:, k]))
    return x_NCHW


def trivialaugment(x_NCHW: Tensor, u_ND: Tensor) -> Tensor:
    """One operation, of a magnitude drawn from a wide range."""
    operation_NK, is_negative_NK = _operations(u_ND)
    operation_N = operation_NK[:, 0]
    bin_N = (u_ND[:, BIN] * BINS).long()
    magnitude_N = _magnitudes(True, *x_NCHW.shape[-2:], u_ND.device)[operation_N, bin_N]
    return apply(x_NCHW, operation_N, _signed(magnitude_N, operation_N, is_negative_NK[:, 0]))


def apply(x_NCHW: Tensor, operation_N: Tensor, magnitude_N: Tensor) -> Tensor:
    """One operation of each sample, with its magnitude as torchvision's `_apply_op` takes it; uint8 to uint8."""
    x = _look_up(x_NCHW, operation_N, magnitude_N)
    x = torch.where(_in(operation_N, SHEAR_X, ROTATE), _moved(x, operation_N, magnitude_N), x)
    return torch.where(
        (_in(operation_N, COLOUR, COLOUR) | _in(operation_N, SHARPNESS, SHARPNESS)),
        _blended(x, operation_N, magnitude_N),
        x,
    )


def _operations(u_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Which operations, int64 N×K, and whether their magnitudes are negative."""
    return (u_ND[:, OPERATIONS] * COUNT).long(), u_ND[:, SIGNS] < 0.5


def _signed(magnitude_N: Tensor, operation_N: Tensor, is_negative_N: Tensor) -> Tensor:
    return torch.where(is_negative_N & (operation_N >= SHEAR_X) & (operation_N <= SHARPNESS), -magnitude_N, magnitude_N)


def _in(operation_N: Tensor, first: int, last: int) -> Tensor:
    return ((operation_N >= first) & (operation_N <= last))[:, None, None, None]


def _look_up(x_NCHW: Tensor, operation_N: Tensor, magnitude_N: Tensor) -> Tensor:
    """What maps a value to a value: each sample's operation as a table, and the identity for all other operations."""
    flat_NCP = x_NCHW.flatten(2).long()
    values_V = torch.arange(256, device=x_NCHW.device)
    magnitude = magnitude_N[:, None, None]
    factor = 1 + magnitude
    mean = luma(x_NCHW).mean((1, 2, 3))[:, None, None]
    dropped = 8 - magnitude.long().clamp(0, 8)
    tables = {
        BRIGHTNESS: factor * values_V,
        CONTRAST: mean + factor * (values_V - mean),
        POSTERIZE: (values_V >> dropped) << dropped,
        SOLARIZE: torch.where(values_V >= magnitude, 255 - values_V, values_V),
        AUTOCONTRAST: _autocontrast(x_NCHW, values_V),
        EQUALIZE: _equalized(flat_NCP, values_V),
    }
    table_NCV = values_V.float().expand(*x_NCHW.shape[:2], -1)
    for operation, table in tables.items():
        table_NCV = torch.where((operation_N == operation)[:, None, None], table.float(), table_NCV)
    table_NCV = table_NCV.round().clamp(0, 255).to(torch.uint8)
    return table_NCV.gather(2, flat_NCP).view(x_NCHW.shape)


def _autocontrast(x_NCHW: Tensor, values_V: Tensor) -> Tensor:
    """From the darkest value of a channel to its brightest, stretched to all values."""
    low, high = (f((-1, -2))[..., None].float() for f in (x_NCHW.amin, x_NCHW.amax))
    return torch.where(high > low, (values_V - low) * 255 / (high - low).clamp(min=1), values_V)


def _equalized(flat_NCP: Tensor, values_V: Tensor) -> Tensor:
    """Each channel's values by their ranks, as PIL's `ImageOps.equalize` has it, in whole numbers."""
    counts = torch.zeros(*flat_NCP.shape[:2], 256, dtype=torch.int32, device=flat_NCP.device)
    counts.scatter_add_(2, flat_NCP, torch.ones_like(flat_NCP, dtype=torch.int32))
    brightest = counts.gather(2, flat_NCP.amax(2, keepdim=True))
    step = (flat_NCP.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    equal = (below + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, equal, values_V)


def _moved(x_NCHW: Tensor, operation_N: Tensor, magnitude_N: Tensor) -> Tensor:
    """Sheared from the upper left corner, shifted by whole pixels, or turned around the centre; black beside it."""
    height, width = x_NCHW.shape[-2:]

    def of(operation: int) -> Tensor:
        return torch.where(operation_N == operation, magnitude_N, 0.0)[:, None, None]

    y = (torch.arange(height, device=x_NCHW.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=x_NCHW.device) - (width - 1) / 2
    angle = torch.deg2rad(of(ROTATE))
    cos, sin = angle.cos(), angle.sin()
    from_x = cos * x - sin * y + of(SHEAR_X) * (y + height / 2) - of(TRANSLATE_X).trunc()
    from_y = cos * y + sin * x + of(SHEAR_Y) * (x + width / 2) - of(TRANSLATE_Y).trunc()
    grid = torch.stack([from_x * 2 / width, from_y * 2 / height], -1)
    moved = F.grid_sample(x_NCHW.float(), grid, "bilinear", "zeros", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)


def _blended(x_NCHW: Tensor, operation_N: Tensor, magnitude_N: Tensor) -> Tensor:
    """Nearer to, or farther from, the grey image (colour) or the blurred one (sharpness)."""
    x = x_NCHW.float()
    other = torch.where(_in(operation_N, COLOUR, COLOUR), luma(x).round() if x.shape[1] == 3 else x, _blurred(x))
    return torch.lerp(other, x, 1 + magnitude_N[:, None, None, None]).round().clamp(0, 255).to(torch.uint8)


def _blurred(x_NCHW: Tensor) -> Tensor:
    """Means of 3×3 pixels, in which the central one counts five times; the border stays."""
    blurred = x_NCHW.clone()
    if min(x_NCHW.shape[-2:]) > 2:
        sums = F.avg_pool2d(x_NCHW, 3, 1, divisor_override=1)
        blurred[..., 1:-1, 1:-1] = ((sums + 4 * x_NCHW[..., 1:-1, 1:-1]) / 13).round()
    return blurred


@lru_cache(maxsize=64)
def _magnitudes(is_wide: bool, height: int, width: int, device: torch.device) -> Tensor:
    """Magnitude of each operation and bin, float32; kept, because it comes from the host."""
    table = torch.zeros(COUNT, BINS)
    shift_x, shift_y = (32.0, 32.0) if is_wide else (150.0 / 331.0 * width, 150.0 / 331.0 * height)
    shear, turn, blend, bits = (0.99, 135.0, 0.99, 6) if is_wide else (0.3, 30.0, 0.9, 4)
    largest = {SHEAR_X: shear, SHEAR_Y: shear, TRANSLATE_X: shift_x, TRANSLATE_Y: shift_y, ROTATE: turn}
    largest |= dict.fromkeys((BRIGHTNESS, COLOUR, CONTRAST, SHARPNESS), blend)
    for operation, value in largest.items():
        table[operation] = torch.linspace(0.0, value, BINS)
    table[POSTERIZE] = 8 - (torch.arange(BINS) / ((BINS - 1) / bits)).round()
    table[SOLARIZE] = torch.linspace(255.0, 0.0, BINS)
    return table.to(device)
