"""Convolutions of any number of dimensions, strides, dilations and groups, transposed ones too.

Shapes: N samples, G groups, I inputs and O outputs of a group, K offsets of the kernel, S input and T output positions.
Padding that is not symmetric, or not of zeros, is an operation before this one, and is in the input that is seen here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.matmul import Outer
from kdprune.models.gradient_norms.uses import Dense, Use, spans, squared_norms, wide

PASS = 64  # multiplications inside a matrix product that take as long as one element of a pass over memory


@dataclass(frozen=True)
class Geometry:
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int

    def offsets(self) -> Iterator[Shape]:
        """Where each element of the kernel lies, in input positions."""
        return itertools.product(*(range(0, k * d, d) for k, d in zip(self.kernel, self.dilation, strict=True)))

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, [p for p in reversed(self.padding) for _ in range(2)]) if any(self.padding) else x

    def window(self, tensor: Tensor, offset: Shape, out: Shape, first: int) -> Tensor:
        """What the kernel's element at `offset` sees from each output position, in the dimensions from `first` on."""
        for d, (o, s, t) in enumerate(zip(offset, self.stride, out, strict=True), first):
            tensor = tensor[(slice(None),) * d + (slice(o, o + (t - 1) * s + 1, s),)]
        return tensor


class Convolution:
    """The weight of a convolution: x is N×G·I×S, g is N×G·O×T."""

    def __init__(self, x: Tensor, g: Tensor, geometry: Geometry) -> None:
        self._x, self._g, self._geometry = x, g, geometry
        self._inputs, self._outputs = x.shape[1] // geometry.groups, g.shape[1] // geometry.groups

    def gradients(self, first: int, end: int) -> Tensor:
        x, g = self._x[first:end], self._g[first:end]
        if self._inputs == self._outputs == 1:
            return self._depthwise(x, g)
        stacked = torch.stack(list(self._products(x, g)), -1)
        return stacked.reshape(len(x), g.shape[1], self._inputs, *self._geometry.kernel)

    def squares(self) -> Tensor:
        """By the Gram matrices of the positions where that takes less arithmetic, otherwise offset by offset."""
        geometry, inputs, outputs = self._geometry, self._inputs, self._outputs
        offsets, positions, pixels = prod(geometry.kernel), self._g[0, 0].numel(), self._x[0, 0].numel()
        shifts = offsets * positions * inputs * outputs
        grams = pixels**2 * inputs + positions**2 * (outputs + PASS * offsets)
        spanned = geometry.groups * (pixels**2 + 2 * positions**2)
        if inputs == outputs == 1:
            function, held = self._depthwise_squares, geometry.groups * offsets
        elif grams < shifts:
            function, held = self._gram, spanned
        else:
            function, held = self._shifted, self._x[0].numel() + self._g[0].numel()
        return torch.cat([function(self._x[a:b], self._g[a:b]) for a, b in spans(len(self._x), held)])

    def _shifted(self, x: Tensor, g: Tensor) -> Tensor:
        squares = [squared_norms(product) for product in self._products(x, g)]
        return torch.stack(squares).sum(0)

    def _products(self, x: Tensor, g: Tensor) -> Iterator[Tensor]:
        """The gradients N×G×O×I of the kernel's elements, one after the other: nothing is unfolded.

        With a stride of one, all windows are the same flat piece of the padded input, only that it starts elsewhere,
        once the output's gradient is laid out in rows as long as the input's.
        """
        samples, groups, geometry = len(x), self._geometry.groups, self._geometry
        out = g.shape[2:]
        x = geometry.padded(x)
        sizes = x.shape[2:]
        flat = set(geometry.stride) == {1}
        if flat:
            g = F.pad(g, [n for s, t in zip(reversed(sizes[1:]), reversed(out[1:]), strict=True) for n in (0, s - t)])
            steps = [prod(sizes[d + 1 :]) for d in range(len(sizes))]
            length = sum((t - 1) * step for t, step in zip(out, steps, strict=True)) + 1
            x, g = x.flatten(2), g.flatten(2)[..., :length]
        g_OT = g.reshape(samples * groups, self._outputs, -1)
        for offset in geometry.offsets():
            if flat:
                start = sum(o * step for o, step in zip(offset, steps, strict=True))
                seen = x[..., start : start + length]
            else:
                seen = geometry.window(x, offset, out, 2)
            x_IT = seen.reshape(samples * groups, self._inputs, -1)
            yield torch.bmm(g_OT, x_IT.transpose(1, 2)).unflatten(0, (samples, groups))

    def _gram(self, x: Tensor, g: Tensor) -> Tensor:
        """⟨Σ over offsets of the inputs' Gram matrix, moved along both of its sides; the gradients' Gram matrix⟩."""
        geometry, out = self._geometry, g.shape[2:]
        batch = len(x) * geometry.groups
        x_IS, g_OT = wide(x).reshape(batch, self._inputs, -1), wide(g).reshape(batch, self._outputs, -1)
        pixels = torch.bmm(x_IS.transpose(1, 2), x_IS).view(batch, *x.shape[2:] * 2)
        sides = [p for p in reversed(geometry.padding * 2) for _ in range(2)]
        pixels = F.pad(pixels, sides) if any(sides) else pixels
        gradients = torch.bmm(g_OT.transpose(1, 2), g_OT).view(batch, *out * 2)
        seen = torch.zeros_like(gradients)
        for offset in geometry.offsets():
            seen += geometry.window(geometry.window(pixels, offset, out, 1), offset, out, 1 + len(out))
        return seen.mul_(gradients).view(len(x), -1).sum(1)

    def _depthwise(self, x: Tensor, g: Tensor) -> Tensor:
        """One channel a group: the batch as channels of one sample, which the usual backward function takes."""
        channels = x.shape[0] * x.shape[1]
        x, g = (t.reshape(1, channels, *t.shape[2:]) for t in (x, g))
        weight = x.new_empty(channels, 1, *self._geometry.kernel)
        geometry, none = self._geometry, [0] * len(self._geometry.kernel)
        _, gradient, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, none, channels,
            [False, True, False],
        )  # fmt: skip
        return gradient.reshape(-1, geometry.groups, 1, *geometry.kernel)

    def _depthwise_squares(self, x: Tensor, g: Tensor) -> Tensor:
        return squared_norms(self._depthwise(x, g))


def convolution(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """`nn.Conv1d`, `2d`, `3d` and their transposed forms, bias included."""
    if layout.dim != 0:
        return None
    if slot == 2:
        return Dense(layout.split(wide(gradient)).flatten(3).sum((1, 3)))
    x: Tensor = node._saved_input  # type: ignore[attr-defined]
    if layout.rows != 1 or slot != 1:
        return None
    stride, padding, dilation = (_ints(node, name) for name in ("stride", "padding", "dilation"))
    geometry = Geometry(shape[2:], stride, padding, dilation, int(node._saved_groups))  # type: ignore[attr-defined]
    if node._saved_transposed:  # type: ignore[attr-defined]
        x, gradient = gradient, x  # the weight of the convolution that goes the other way
    apart = all(k <= s for k, s in zip(geometry.kernel, stride, strict=True)) and max(dilation) == 1
    if apart and geometry.groups == 1:
        patches = geometry.padded(x)
        for d, (k, s, t) in enumerate(zip(geometry.kernel, stride, gradient.shape[2:], strict=True), 2):
            patches = patches.unfold(d, k, s).narrow(d, 0, t)
        ndim = len(stride)
        columns = patches.movedim(1, ndim + 1).flatten(1, ndim).flatten(2)  # N×T×I·K
        return Outer(gradient.flatten(2).transpose(1, 2), columns, shape)
    return Convolution(x, gradient, geometry)


def _ints(node: Node, name: str) -> Shape:
    values: Sequence[int] = getattr(node, f"_saved_{name}")
    return tuple(int(value) for value in values)
