"""The size of a weight (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner


def magnitudes(weights: Tensors) -> Tensors:
    """|w|."""
    return {name: weight.abs() for name, weight in weights.items()}


@pruner("magnitude", labels=False, paper="Han et al. 2015, arXiv 1506.02626", cost="nothing")
def magnitude(network: Network) -> Tensors:
    """|w|: small weights go."""
    return magnitudes(network.weights)
