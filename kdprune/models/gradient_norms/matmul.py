"""Matrix products with a matrix of parameters: linear layers, with or without positions.

Shapes: N samples, T positions, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.elementwise import passed
from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.uses import Use, spans, squared_norms, wide


class Outer:
    """The gradient aᵀ·b of each sample, I×O, from a N×T×I and b N×T×O; `shape` is what the parameters call it."""

    def __init__(self, a_NTI: Tensor, b_NTO: Tensor, shape: Shape) -> None:
        self._a, self._b, self._shape = a_NTI, b_NTO, shape

    def gradients(self, first: int, end: int) -> Tensor:
        return self._products(first, end).reshape(-1, *self._shape)

    def _products(self, first: int, end: int) -> Tensor:
        return torch.bmm(self._a[first:end].transpose(1, 2), self._b[first:end])

    def squares(self) -> Tensor:
        """‖aᵀb‖² = ⟨aaᵀ, bbᵀ⟩ (Goodfellow 2015 for T = 1; Li et al. 2022), or by the product, where that is cheaper."""
        samples, positions, inputs = self._a.shape
        outputs = self._b.shape[2]
        if positions == 1:
            return squared_norms(self._a) * squared_norms(self._b)
        if positions * (inputs + outputs) > inputs * outputs:
            parts = [squared_norms(self._products(*span)) for span in spans(samples, inputs * outputs)]
        else:
            parts = [self._gram(*span) for span in spans(samples, 2 * positions**2)]
        return torch.cat(parts)

    def _gram(self, first: int, end: int) -> Tensor:
        a, b = wide(self._a[first:end]), wide(self._b[first:end])
        return torch.bmm(a, a.transpose(1, 2)).mul_(torch.bmm(b, b.transpose(1, 2))).sum((1, 2))


def addmm(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """y = θ₀ + x·θ₂: a linear layer with a bias, whose positions are rows."""
    if node._saved_alpha != 1 or node._saved_beta != 1:  # type: ignore[attr-defined]
        return None
    if slot == 0:
        return passed(node, slot, gradient, layout, shape)
    return _right(node._saved_mat1, gradient, layout, shape) if slot == 2 else None  # type: ignore[attr-defined]


def mm(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """y = x·θ: a linear layer without a bias."""
    return _right(node._saved_self, gradient, layout, shape) if slot == 1 else None  # type: ignore[attr-defined]


def _right(x: Tensor, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    return Outer(layout.split(x), layout.split(gradient), shape) if layout.dim == 0 else None
