"""From uint8 views to what a model wants: its channels, its size, its mean and std, on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdprune.data.framing import frame
from kdprune.data.resize import Box, largest_box, resize
from kdprune.models.build import InputSpec


class Inputs(nn.Module):
    """Turn uint8 N×C×H×W into float32 N×C'×S×T, normalised, in the model's memory format.

    It has no parameters, and its buffers stay out of state dicts, so it can be put in front of a model to export both
    as one, which takes uint8 images and needs no other preprocessing:

        deployed = nn.Sequential(Inputs(built.spec, whole_images=True), built.model).eval()

    Args:
        spec: what the model wants.
        device: where it runs (default: the CPU; `.to()` moves it like any module).
        channels_last: for convolutional models.
        whole_images: it is given images that are nobody's views yet, to be cut and scaled as for evaluation. Views are
            scaled only, by the model's interpolation; of one of another shape it takes the largest part in the middle.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: InputSpec,
        device: torch.device | None = None,
        channels_last: bool = False,
        whole_images: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.whole_images = spec, whole_images
        self.channels_last = channels_last
        mean, std = (torch.tensor(x, dtype=torch.float32).view(1, -1, 1, 1) for x in (spec.mean, spec.std))
        # One multiplication and one addition for (x/255 - mean) / std. Not persistent: the spec travels in the header
        # of a model's file, and the state dict must keep timm's own names.
        self.register_buffer("scale", (1 / (255 * std)).to(device), persistent=False)
        self.register_buffer("shift", (-mean / std).to(device), persistent=False)

    def forward(self, views_NCHW: Tensor) -> Tensor:
        x = frame(views_NCHW, self.spec) if self.whole_images else _scaled(views_NCHW, self.spec)
        x = with_channels(x, self.spec.channels)
        x = x.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        if self.channels_last and x.shape[1] > 1:
            return self._normalised_rows(x)
        return x.float().mul_(self.scale).add_(self.shift)

    def _normalised_rows(self, x_NCHW: Tensor) -> Tensor:
        """The same in channels_last, by rows: a loop over three channels for each pixel costs ten times as much."""
        x = x_NCHW.permute(0, 2, 3, 1)
        scale, shift = (each.flatten().repeat(x.shape[2]) for each in (self.scale, self.shift))
        rows = x.flatten(2).float().mul_(scale).add_(shift)
        return rows.view(x.shape).permute(0, 3, 1, 2)


def _scaled(views_NCHW: Tensor, spec: InputSpec) -> Tensor:
    """Views at a model's size, uint8."""
    height, width = views_NCHW.shape[-2:]
    if (height, width) == spec.size_HW:
        return views_NCHW
    h, w = largest_box(height, width, spec.size_HW)
    top, left = (height - h) // 2, (width - w) // 2
    if (h, w) == spec.size_HW:
        return views_NCHW[..., top : top + h, left : left + w]
    return resize(views_NCHW, Box(top, left, h, w), spec.size_HW, spec.interpolation)


def with_channels(x_NCHW: Tensor, channels: int) -> Tensor:
    """uint8 images with one channel or three, grey by ITU-R BT.601, as Pillow's "L"."""
    if x_NCHW.shape[1] == channels:
        return x_NCHW
    if x_NCHW.shape[1] == 1:
        return x_NCHW.expand(-1, channels, -1, -1)
    red, green, blue = x_NCHW.float().split(1, dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)
