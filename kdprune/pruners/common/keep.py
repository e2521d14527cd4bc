"""From scores to kept weights: so many of the highest, of the whole network or of each layer.

Ties are broken by a hash of the seed and the place of the weight, never by its place alone, so the kept weights are a
function of the scores and the seed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdprune.data.counter import bits, key

Kept = dict[str, Tensor]  # bool, on the host


def kept_count(total: int, sparsity: float) -> int:
    """How many of `total` weights are kept: all but round(sparsity · total)."""
    return total - round(sparsity * total)


def densities(sparsity: float, rounds: int) -> list[float]:
    """Kept fractions after each of several rounds: (1 − sparsity)^(i/n), so that each prunes the same share of what is
    left (Tanaka et al. 2020, §6; Frankle & Carbin 2019)."""
    return [(1 - sparsity) ** (i / rounds) for i in range(1, rounds + 1)]


def keep_highest(
    scores: Mapping[str, Tensor], count: int, seed: int, alive: Mapping[str, Tensor] | None = None
) -> Kept:
    """The `count` highest scores of all tensors together.

    Args:
        scores: of each weight, floating, by tensor.
        count: how many are kept.
        seed: of the order of equal scores.
        alive: weights that may be kept; None for all.

    Raises:
        ValueError: a score that is NaN.
    """
    for name, score in scores.items():
        if score.isnan().any():
            raise ValueError(f"scores of {name} are not a number (NaN)")
    values = torch.cat([score.detach().reshape(-1).cpu().double() for score in scores.values()])
    places = torch.arange(len(values))
    if alive is not None:
        places = torch.cat([alive[name].reshape(-1) for name in scores]).nonzero()[:, 0]
    kept = torch.zeros(len(values), dtype=torch.bool)
    kept[_highest(values, places, count, key(seed, "pruner ties", *scores))] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def keep_by_layer(
    scores: Mapping[str, Tensor], counts: Mapping[str, int], seed: int, alive: Mapping[str, Tensor]
) -> Kept:
    """The highest scores of each tensor, `counts` of them."""
    kept: Kept = {}
    for name, score in scores.items():
        kept |= keep_highest({name: score}, counts[name], seed, {name: alive[name]})
    return kept


def layer_counts(sizes: Mapping[str, int], sparsity: float, seed: int) -> dict[str, int]:
    """How many weights each layer keeps of one density: shares that add up exactly and only fall as sparsity grows.

    That is Webster's method: the k-th weight of a layer of n has its turn at density (k − ½)/n. Largest remainders
    could give a layer more of fewer.
    """
    turns = {name: -(torch.arange(size, dtype=torch.float64) + 0.5) / size for name, size in sizes.items()}
    kept = keep_highest(turns, kept_count(sum(sizes.values()), sparsity), seed)
    return {name: int(one.sum()) for name, one in kept.items()}


def _highest(values: Tensor, places: Tensor, count: int, purpose: int) -> Tensor:
    """Of `places` those with the `count` highest values; of equal ones those with the smallest hashes."""
    assert 0 <= count <= len(places)
    if count == 0:
        return places[:0]
    among = values[places]
    threshold = among.kthvalue(len(among) - count + 1).values
    above, level = places[among > threshold], places[among == threshold]
    order = bits(purpose, level).argsort(stable=True)
    return torch.cat([above, level[order[: count - len(above)]]])
