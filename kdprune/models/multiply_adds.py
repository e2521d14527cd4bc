"""Multiply-adds of a model for one image, of all weights and of those that are not zero."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


class MultiplyAdds(NamedTuple):
    """Of the convolutions and linear layers, for one image; nothing else is counted."""

    dense: int
    sparse: int


@torch.no_grad()
def multiply_adds(model: nn.Module, input_shape: tuple[int, int, int]) -> MultiplyAdds:
    """Count how often each weight is used, which of a convolution is once for every pixel of its output.

    Args:
        model: left as it is.
        input_shape: channels, height and width of its images.
    """
    own = copy.deepcopy(model).cpu().float().eval()
    uses: Counter[str] = Counter()

    def note(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, _ConvTransposeNd):
                uses[name] += inputs[0][0, 0].numel()
            elif isinstance(layer, _ConvNd):
                uses[name] += output[0, 0].numel()
            else:
                uses[name] += output.numel() // output.shape[-1]

        return hook

    layers = {name: layer for name, layer in own.named_modules() if isinstance(layer, _ConvNd | nn.Linear)}
    for name, layer in layers.items():
        layer.register_forward_hook(note(name, layer))
    own(torch.zeros(1, *input_shape))
    weights: dict[str, Any] = {name: layer.weight for name, layer in layers.items()}
    return MultiplyAdds(
        sum(uses[name] * weight.numel() for name, weight in weights.items()),
        sum(uses[name] * int(weight.count_nonzero()) for name, weight in weights.items()),
    )
