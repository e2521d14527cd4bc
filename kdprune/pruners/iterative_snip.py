"""SNIP in many rounds, each of the network that the one before has left (de Jorge et al. 2021)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner
from kdprune.pruners.common.saliency import saliency


@pruner(
    "iterative_snip",
    labels=True,
    rounds=100,
    paper="de Jorge et al. 2021, arXiv 2006.09081",
    cost="a forward and backward pass a round",
)
def iterative_snip(network: Network, per_class: int = 10) -> Tensors:
    """|w·∂L/∂w| (see `snip`), taken anew after every round."""
    return saliency(network.weights, network.gradients(per_class))
