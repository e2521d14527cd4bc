"""Which channels of a student stay: those of the highest scores.

Equal scores are ordered by a hash of the seed, so the same command keeps the same channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdprune.data.counter import key, permutation
from kdprune.messages import listed
from kdprune.models.channels import Channels, Coupled
from kdprune.pruners.common.keep import keep_highest

IMPORTANCES = ("magnitude", "bn_scale", "random")
SCOPES = ("global", "layer")


def keep(scores: Mapping[str, Tensor], fraction: float, scope: str, seed: int) -> dict[str, Tensor]:
    """Which channels stay: those of the highest scores, one of each layer at least.

    Args:
        scores: of the channels of each layer.
        fraction: that stay / all, rounded to whole channels: of all layers together, or (scope "layer") of each.

    Returns:
        bool, by layer.
    """
    if scope == "layer":
        counts = {name: max(1, round(fraction * len(score))) for name, score in scores.items()}
        return {name: keep_highest({name: score}, counts[name], seed)[name] for name, score in scores.items()}
    best = {name: keep_highest({name: score}, 1, seed)[name] for name, score in scores.items()}
    count = round(fraction * sum(map(len, scores.values())))
    first = {name: score.double().masked_fill(best[name], torch.inf) for name, score in scores.items()}
    return keep_highest(first, max(len(scores), count), seed)


def scores_of(graph: Channels, importance: str, seed: int) -> dict[str, Tensor]:
    """The score of each channel that can be removed, by the first layer that puts it out.

    Raises:
        ValueError: no channel can be; channels that the importance has no score for.
    """
    free = [coupled for coupled in graph.coupled if coupled.held is None and coupled.units > 1]
    if not free:
        reasons = sorted({coupled.held for coupled in graph.coupled if coupled.held is not None})
        raise ValueError(f"none of its channels can be removed: they pass {listed(reasons) or 'nothing'}")
    return {coupled.layer: _score(coupled, importance, seed) for coupled in free}


def _score(coupled: Coupled, importance: str, seed: int) -> Tensor:
    if importance == "random":
        order = permutation(key(seed, "channels", coupled.layer), torch.arange(coupled.units))
        return order.double() / coupled.units
    from torch_pruning.pruner.importance import BNScaleImportance, GroupMagnitudeImportance

    # Both divide by the mean of the layers' scores, so that the scores of all layers can be compared.
    score = (GroupMagnitudeImportance(p=2) if importance == "magnitude" else BNScaleImportance())(coupled.group)
    if score is None:
        raise ValueError(
            f"--importance: bn_scale given, and no BatchNorm follows {coupled.layer}; allowed is magnitude or random"
        )
    # A layer whose weights are all zero has a mean of zero.
    return score.double().nan_to_num(0.0).reshape(coupled.sets, coupled.units).sum(0)
