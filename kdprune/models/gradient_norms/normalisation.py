"""Scale and shift of BatchNorm in eval mode, LayerNorm and GroupNorm.

Shapes: N samples, R rows a sample, C channels, D normalised elements. All are y = θ·x̂ + β, so that a sample's gradient
is the sum of its output gradients, times x̂ for the scale.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.uses import Dense, Use, wide


def batch_norm(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """BatchNorm with the statistics that it has stored; x̂ is never formed: Σ g·x̂ = (Σ g·x − μ·Σ g) / σ."""
    if layout.dim != 0 or node._saved_training:  # type: ignore[attr-defined]
        return None
    g = _channels(gradient, layout)
    if slot == 2:
        return Dense(g.sum((1, 3)))
    mean, variance = node._saved_running_mean, node._saved_running_var  # type: ignore[attr-defined]
    epsilon = next(getattr(node, name) for name in ("_saved_eps", "_saved_epsilon") if hasattr(node, name))
    centred = _channels(node._saved_input, layout) - wide(mean)[:, None]  # type: ignore[attr-defined]
    return Dense(centred.mul_(g).sum((1, 3)) * (wide(variance) + epsilon).rsqrt())


def layer_norm(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """LayerNorm over the last dimensions."""
    g = wide(gradient)
    if slot == 1:
        x, mean, rstd = node._saved_input, node._saved_result1, node._saved_result2  # type: ignore[attr-defined]
        g = (wide(x) - mean) * rstd * g
    if layout.dim >= g.ndim - len(shape):
        return None
    return Dense(layout.split(g).flatten(1, -len(shape) - 1).sum(1))


def group_norm(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """GroupNorm: statistics are per sample and group, which is N×G."""
    if layout.dim != 0:
        return None
    g = gradient
    if slot == 1:
        x, mean, rstd = node._saved_input, node._saved_result1, node._saved_result2  # type: ignore[attr-defined]
        grouped = wide(x).reshape(*mean.shape, -1)
        g = ((grouped - mean[..., None]) * rstd[..., None]).reshape(x.shape) * wide(gradient)
    return Dense(_channels(g, layout).sum((1, 3)))


def _channels(tensor: Tensor, layout: Layout) -> Tensor:
    """N·R×C×… as N×R×C×positions."""
    split = layout.split(wide(tensor))
    return split.flatten(3) if split.ndim > 3 else torch.unsqueeze(split, 3)
