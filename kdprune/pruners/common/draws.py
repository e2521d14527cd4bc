"""A random number for each weight, as a function of the seed and the tensor's name."""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.data.counter import bits, key


def random_ranks(like: Tensor, name: str, seed: int) -> Tensor:
    """A random order of the weights of a tensor, from 0 to its size less one, int64 in its shape."""
    hashes = bits(key(seed, "pruner", name), torch.arange(like.numel()))
    ranks = torch.empty_like(hashes)
    ranks[hashes.argsort(stable=True)] = torch.arange(len(hashes))
    return ranks.reshape(like.shape)


def random_numbers(like: Tensor, name: str, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2⁻⁵³, float64 in the tensor's shape."""
    hashes = bits(key(seed, "pruner", name), torch.arange(like.numel()))
    return (((hashes >> 11) & (2**53 - 1)).double() * 2.0**-53).reshape(like.shape)
