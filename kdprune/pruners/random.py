"""Chance, the same density in every layer in expectation: what every other pruner has to beat."""

from __future__ import annotations

from kdprune.pruners.common.draws import random_numbers
from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner


@pruner("random", labels=False, paper="", cost="nothing")
def random(network: Network) -> Tensors:
    """A uniform number for each weight, a function of the seed, the tensor's name and the place in it."""
    return {name: random_numbers(weight, name, network.seed) for name, weight in network.weights.items()}
