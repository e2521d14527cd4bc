"""Connection sensitivity: how much the loss changes if a weight is taken away (Lee et al. 2019)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner
from kdprune.pruners.common.saliency import saliency


@pruner("snip", labels=True, paper="Lee et al. 2019, arXiv 1810.02340", cost="a forward and backward pass")
def snip(network: Network, per_class: int = 10) -> Tensors:
    """|w·∂L/∂w| (eq. 4–5 there; their division by the sum changes no order)."""
    return saliency(network.weights, network.gradients(per_class))
