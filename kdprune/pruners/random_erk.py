"""Chance, with Erdős–Rényi-kernel densities: small layers stay denser than large ones (Evci et al. 2020)."""

from __future__ import annotations

from kdprune.pruners.common.draws import random_ranks
from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner


def proportions(shapes: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """(n_in + n_out + kernel height + width) / (n_in · n_out · height · width) of each layer's tensor."""
    found = {}
    for name, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        found[name] = sum(shape) / size
    return found


def erk(ranks: Tensors, share: dict[str, float]) -> Tensors:
    """Scores whose highest ones are those of random layers of densities min(1, ε·share).

    A weight of random rank r in a layer of n is kept from ε = (r + ½)/(n·share) on, so the inverse of that is its
    score. Whatever number is kept, some ε belongs to it: no search for ε, an exact count, and a sparser mask is part of
    a denser one of the same seed.
    """
    return {name: share[name] * rank.numel() / (rank.double() + 0.5) for name, rank in ranks.items()}


@pruner("random_erk", labels=False, paper="Evci et al. 2020, arXiv 1911.11134", cost="nothing")
def random_erk(network: Network) -> Tensors:
    """A random order within each layer, and densities in proportion to (n_in + n_out + kernel) / (their product)."""
    weights = network.weights
    ranks = {name: random_ranks(weight, name, network.seed) for name, weight in weights.items()}
    return erk(ranks, proportions({name: tuple(weight.shape) for name, weight in weights.items()}))
