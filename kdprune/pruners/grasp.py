"""Gradient signal preservation: what a weight adds to the norm of the gradient stays (Wang et al. 2020)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner
from kdprune.pruners.common.saliency import products


@pruner("grasp", labels=True, paper="Wang et al. 2020, arXiv 2002.07376", cost="three forward and backward passes")
def grasp(network: Network, per_class: int = 10, temperature: float = 200.0) -> Tensors:
    """w⊙(Hg), the negative of the paper's −w⊙(Hg), of which the highest go (eq. 8 there; logits divided by T)."""
    return products(network.weights, network.hessian_gradients(per_class, temperature))
