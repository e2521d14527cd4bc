"""From uint8 views to what a model wants: its channels, its size, its mean and std, on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdprune.models.build import InputSpec


class Inputs(nn.Module):
    """Turn uint8 N×C×H×W into float32 N×C'×S×S, normalised, in the model's memory format.

    It has no parameters, and its buffers stay out of state dicts, so it can be put in front of a model to export both
    as one, which takes uint8 images and needs no other preprocessing:

        deployed = nn.Sequential(Inputs(built.spec), built.model).eval()

    Args:
        spec: what the model wants.
        device: where it runs (default: the CPU; `.to()` moves it like any module).
        channels_last: for convolutional models.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: InputSpec, device: torch.device | None = None, channels_last: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.channels_last = channels_last
        mean, std = (torch.tensor(x, dtype=torch.float32).view(1, -1, 1, 1) for x in (spec.mean, spec.std))
        # One multiplication and one addition for (x/255 - mean) / std. Not persistent: the spec travels in the header
        # of a model's file, and the state dict must keep timm's own names.
        self.register_buffer("scale", (1 / (255 * std)).to(device), persistent=False)
        self.register_buffer("shift", (-mean / std).to(device), persistent=False)

    def forward(self, views_NCHW: Tensor) -> Tensor:
        x = _with_channels(views_NCHW, self.spec.channels)
        side = min(x.shape[-2:])
        if x.shape[-2] != x.shape[-1]:
            top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
            x = x[..., top : top + side, left : left + side]
        x = x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        x = x.float()
        if side != self.spec.size:
            # Bilinear for every model: a view must not overshoot 0–255 at edges as bicubic does on tiny images.
            x = F.interpolate(x, size=(self.spec.size,) * 2, mode="bilinear", antialias=side > self.spec.size)
        return x.mul_(self.scale).add_(self.shift)


def _with_channels(x_NCHW: Tensor, channels: int) -> Tensor:
    if x_NCHW.shape[1] == channels:
        return x_NCHW
    if x_NCHW.shape[1] == 1:
        return x_NCHW.expand(-1, channels, -1, -1)
    red, green, blue = x_NCHW.float().split(1, dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)  # ITU-R BT.601, as Pillow's "L"
