"""Synaptic flow: the sum of all paths through a weight, without data, in many rounds (Tanaka et al. 2020)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner
from kdprune.pruners.common.saliency import saliency


@pruner(
    "synflow",
    labels=False,
    rounds=100,
    paper="Tanaka et al. 2020, arXiv 2006.05467",
    cost="a forward and backward pass of one image a round",
)
def synflow(network: Network) -> Tensors:
    """|w·∂R/∂w| of R, the sum of outputs for an image of ones with all parameters positive (eq. 2 and alg. 1 there)."""
    return saliency(network.weights, network.flow_gradients())
