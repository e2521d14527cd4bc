"""What one use of a tensor of parameters adds to the gradient of each sample.

Shapes: N samples; the star stands for the shape of the tensor that was used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout

BYTES = 2**26  # of per-example gradients that are held at a time


class Use(Protocol):
    """A use whose per-example gradients can be asked for, or only their norms."""

    def gradients(self, first: int, end: int) -> Tensor:
        """Per-example gradients of the samples from `first` to before `end`: (end − first)×*."""

    def squares(self) -> Tensor:
        """Squared norms of the per-example gradients of all samples: N."""


class Dense:
    """Per-example gradients N×* that are small enough to be held: of biases, scales and the like."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    def gradients(self, first: int, end: int) -> Tensor:
        return self._gradients[first:end]

    def squares(self) -> Tensor:
        return squared_norms(self._gradients)


class Masked:
    """Any operation at all: its own backward function, given the output's gradient of one sample at a time.

    Backward functions are linear in that gradient. The cost is one call a sample, of this operation alone.
    """

    def __init__(self, node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> None:
        self._node, self._slot, self._gradient, self._layout, self._shape = node, slot, gradient, layout, shape
        self._samples = len(layout.split(gradient))

    def gradients(self, first: int, end: int) -> Tensor:
        return torch.stack([self._of_sample(i) for i in range(first, end)])

    def squares(self) -> Tensor:
        return torch.cat([squared_norms(self.gradients(*span)) for span in spans(self._samples, 1)])

    def _of_sample(self, i: int) -> Tensor:
        masked = torch.zeros_like(self._gradient, memory_format=torch.contiguous_format)
        self._layout.split(masked)[i] = self._layout.split(self._gradient)[i]
        backward: Any = self._node
        result = backward(masked, *[None] * (len(backward._input_metadata) - 1))
        full = result[self._slot] if isinstance(result, tuple) else result
        if full is None:
            return self._gradient.new_zeros(self._shape)
        return full.sum_to_size(self._shape)  # autograd reduces what was broadcast outside of the function


def squared_norms(tensor: Tensor) -> Tensor:
    """Squared norm of each row of N×*, added up in float32 or better."""
    return wide(tensor).reshape(len(tensor), -1).square().sum(1)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sum_to(tensor: Tensor, layout: Layout, shape: Shape) -> Tensor | None:
    """What `shape` was broadcast to, added up to N×shape; None if samples do not lie along a broadcast dimension."""
    padded = (1,) * (tensor.ndim - len(shape)) + shape
    if len(padded) != tensor.ndim or padded[layout.dim] != 1:
        return None
    per_sample = layout.split(wide(tensor)).sum(1).unsqueeze(layout.dim + 1)
    broadcast = [d for d, size in enumerate(padded, 1) if size == 1 and per_sample.shape[d] != 1]
    summed = per_sample.sum(broadcast, keepdim=True) if broadcast else per_sample
    return summed.reshape(-1, *shape)


def spans(samples: int, elements: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into runs of samples, so that `elements` float32 numbers a sample take no more than `BYTES`."""
    step = max(1, BYTES // (4 * max(1, elements)))
    for first in range(0, samples, step):
        yield first, min(samples, first + step)
