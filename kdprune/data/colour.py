"""Random changes of colour: jitter, hue, grey. Of uint8 images, but for `hue_shifted`.

Shapes: N samples of the batch, C channels, D draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.data.draws import BRIGHTNESS, GREY, HUE, SATURATION


def jitter(strength: float, hue: float, x_NCHW: Tensor, u_ND: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue, in this order (torchvision draws the order, too)."""
    factor = 1 + strength * (2 * u_ND[:, BRIGHTNESS : SATURATION + 1] - 1)
    brightness, contrast, saturation = (f[:, None, None, None] for f in factor.unbind(1))
    x = (x_NCHW.float() * brightness).clamp(0, 255)
    x = torch.lerp(luma(x).mean((-1, -2), keepdim=True), x, contrast).clamp(0, 255)
    if x.shape[1] == 3:
        x = torch.lerp(luma(x), x, saturation).clamp(0, 255)
        if hue > 0:
            x = hue_shifted(x, hue * (2 * u_ND[:, HUE] - 1))
    return x.round().to(torch.uint8)


def hue_shifted(x_N3HW: Tensor, shift_N: Tensor) -> Tensor:
    """Colours turned around the circle of hues by parts of a whole turn; float32, 0 to 255.

    HSV as Smith 1978 has it. Each channel of the result is V·(1 − S·max(0, min(k, 4 − k, 1))), where k is its distance
    from the hue in sixths of a turn.
    """
    red, green, blue = x_N3HW.unbind(1)
    value, low = x_N3HW.amax(1), x_N3HW.amin(1)
    chroma = value - low
    divisor = chroma.clamp(min=1e-6)  # without colour, its hue does not matter
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * shift_N[:, None, None]
    channels = []
    for offset in (5, 3, 1):
        k = (hue + offset).remainder(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def grey(p: float, x_NCHW: Tensor, u_ND: Tensor) -> Tensor:
    """All three channels grey, with probability p."""
    if x_NCHW.shape[1] != 3:
        return x_NCHW
    is_grey = u_ND[:, GREY, None, None, None] < p
    return torch.where(is_grey, luma(x_NCHW).round().to(torch.uint8), x_NCHW)


def luma(x_NCHW: Tensor) -> Tensor:
    """Grey values (ITU-R BT.601), float32 N×1×H×W."""
    if x_NCHW.shape[1] != 3:
        return x_NCHW.float().mean(1, keepdim=True)
    red, green, blue = x_NCHW.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
