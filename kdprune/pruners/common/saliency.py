"""The score that SNIP, its rounds and SynFlow share: a weight times a derivative by it."""

from __future__ import annotations

from kdprune.pruners.common.network import Tensors


def products(weights: Tensors, derivatives: Tensors) -> Tensors:
    """w·d, weight by weight."""
    return {name: weight * derivatives[name] for name, weight in weights.items()}


def saliency(weights: Tensors, derivatives: Tensors) -> Tensors:
    """|w·d|, weight by weight: for the gradient d of a function, how much a small relative change of w changes it."""
    return {name: product.abs() for name, product in products(weights, derivatives).items()}
