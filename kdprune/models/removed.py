"""Weights without some channels: the smaller ones, and the whole ones in which nothing reads these channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

OUT, IN = "out", "in"
Removed = dict[tuple[str, str], list[int]]  # by (path of a layer, OUT or IN): channels, ascending


def without(state: Mapping[str, Tensor], model: nn.Module, removed: Removed) -> dict[str, Tensor]:
    """A state dict without some channels.

    Args:
        state: of the model.
        removed: outputs and inputs of its layers, in places of the model.
    """
    modules, kept = dict(model.named_modules()), dict(state)
    for (path, side), channels in removed.items():
        layer = modules[path]
        for key in (*layer._parameters, *layer._buffers):
            name = f"{path}.{key}"
            if name not in kept or kept[name].ndim == 0 or (side == IN and key != "weight"):
                continue
            dimension = int(side == IN)
            # The groups of a convolution lose the same of their inputs, and its weight has one group's.
            size = kept[name].shape[dimension]
            gone = {channel % size for channel in channels} if side == IN else set(channels)
            places = torch.tensor([place for place in range(size) if place not in gone])
            kept[name] = kept[name].index_select(dimension, places)
    return kept


@torch.no_grad()
def silence(model: nn.Module, removed: Removed) -> None:
    """Set to zero, in place, whatever reads the channels that are removed: what is left must not depend on them."""
    modules = dict(model.named_modules())
    for (path, side), channels in removed.items():
        if side == IN:
            weight: Any = modules[path].weight
            weight[:, [channel % weight.shape[1] for channel in channels]] = 0
