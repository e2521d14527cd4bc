"""A network pruned to a sparsity by a pruner's scores, in one round or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from kdprune.messages import shown
from kdprune.pruners.common.keep import Kept, densities, keep_by_layer, keep_highest, kept_count, layer_counts
from kdprune.pruners.common.network import Network
from kdprune.pruners.common.pattern import PATTERN, keep_of_groups, kept_of_group
from kdprune.pruners.common.pruner import Bound, Scores

Scope = Literal["global", "layer", "2:4"]


def prune(
    network: Network,
    by: Bound,
    sparsity: float,
    *,
    scope: Scope = "global",
    seed: int = 0,
    inverted: bool = False,
    alive: Mapping[str, Tensor] | None = None,
) -> Kept:
    """Prune a network, which is left with zeros in the place of what is pruned.

    A weight that one round has pruned does not come back in a later one.

    Args:
        network: as it stands; its weights are changed.
        by: whose scores decide.
        sparsity: pruned / all prunable weights, in [0, 1).
        scope: whether the highest scores of the network are kept, or those of each layer at one density, or the two
            highest of every four along the input dimension, which is a sparsity of 0.5.
        seed: of the order of equal scores.
        inverted: keep the lowest scores instead, for a sanity check.
        alive: weights that may be kept, at least as many as are to be; None for all.

    Returns:
        Which weights are kept, bool by tensor, on the host; all but round(sparsity · N) of N weights.

    Raises:
        ValueError: a sparsity outside [0, 1); scores that break the contract of pruners.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} given, allowed is [0, 1)")
    weights = network.weights
    kept: Kept = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    kept = kept if alive is None else dict(alive)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    last = layer_counts(sizes, sparsity, seed)
    for number, density in enumerate(densities(sparsity, by.rounds), 1):
        scores = checked(by.function(network), weights, by.written)
        if inverted:
            scores = {name: -score for name, score in scores.items()}
        if scope == "layer":
            # Shares that add up exactly need not fall from round to round, so only the last round's do.
            counts = {
                name: min(max(last[name], kept_count(size, 1 - density)), int(kept[name].sum()))
                for name, size in sizes.items()
            }
            kept = keep_by_layer(scores, last if number == by.rounds else counts, seed, kept)
        elif scope == PATTERN:
            kept = keep_of_groups(scores, kept_of_group(sparsity if number == by.rounds else 1 - density), seed, kept)
        else:
            total = sum(sizes.values())
            count = kept_count(total, sparsity if number == by.rounds else 1 - density)
            kept = keep_highest(scores, min(count, sum(int(one.sum()) for one in kept.values())), seed, kept)
        network.keep(kept)
    return kept


def checked(scores: Scores, weights: dict[str, Tensor], whose: str) -> Scores:
    """Scores as they should be: floating, in the shapes of the weights, none of them NaN.

    Raises:
        ValueError: naming the pruner and the first tensor that breaks the contract.
    """
    if set(scores) != set(weights):
        other = next(iter(set(scores) ^ set(weights)))
        raise ValueError(f"pruner {whose}: its scores and the weights differ in {shown(other)}")
    for name, weight in weights.items():
        score = scores[name]
        if score.shape != weight.shape or not score.is_floating_point():
            raise ValueError(f"pruner {whose}: scores of {name} are {score.dtype} {tuple(score.shape)}, and should be "
                             f"floating-point {tuple(weight.shape)}")  # fmt: skip
        if score.isnan().any():
            raise ValueError(f"pruner {whose}: scores of {name} are not a number (NaN)")
    return {name: scores[name] for name in weights}
