"""Parameters that an operation broadcasts against the batch: position embeddings, class tokens, LayerScale, biases."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.uses import Dense, Use, sum_to


def passed(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """y = x + θ, or θ expanded to the batch: the output's gradient is θ's, but for the sum over what was broadcast."""
    if getattr(node, "_saved_alpha", 1) != 1:
        return elementwise(node, slot, gradient, layout, shape)
    return _dense(gradient, layout, shape)


def repeated(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """θ repeated along dimensions of size one, as if it were expanded."""
    repeats = tuple(node._saved_repeats)  # type: ignore[attr-defined]
    padded = (1,) * (len(repeats) - len(shape)) + shape
    if any(times != 1 and size != 1 for times, size in zip(repeats, padded, strict=True)):
        return None
    return passed(node, slot, gradient, layout, shape)


def scaled(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """y = x·θ: the other factor is the only derivative that is computed."""
    other = node._saved_other if slot == 0 else node._saved_self  # type: ignore[attr-defined]
    return _dense(gradient * other, layout, shape)


def elementwise(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """Any other operation that treats each element by itself: its backward function, before autograd adds up."""
    backward: Any = node
    full = backward(gradient)[slot]
    return _dense(full, layout, shape) if full is not None and full.shape == gradient.shape else None


def _dense(full: Tensor, layout: Layout, shape: Shape) -> Use | None:
    summed = sum_to(full, layout, shape)
    return None if summed is None else Dense(summed)
