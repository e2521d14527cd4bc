"""How often a sample is forgotten. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.messages import unknown
from kdprune.scorers.common.scorer import scorer

POLICIES = ("inf", "max", "zero")


@scorer(
    "forgetting",
    needs="dynamics",
    reads=["correct"],
    hard="high",
    labels=True,
    paper="Toneva et al. 2019, arXiv 1812.05159",
    cost="R whole trainings",
)
def forgetting(correct_REN: Tensor, never_learned: str = "inf") -> Tensor:
    """Transitions from right to wrong between successive recorded epochs, averaged over repeats (definition 1).

    Only what was learned is forgotten: the state before the first recorded epoch counts as nothing, and a sample that
    is learned at last and stays so has 0. The published experiments add the counts of 5 repeats, which gives the same
    order as their mean, and look at a sample each time that it is in a batch (record the training view for that).

    Args:
        never_learned: what a repeat counts in which a sample was never right. inf: as many as there are epochs, as in
            the authors' code, and +∞ for a sample that no repeat has learned, as in the paper's text: it is harder than
            all others. max: as many as there are epochs. zero: none, as where only transitions are counted, so that
            the hardest samples are among the easiest: only to compare with code that does so.

    Raises:
        ValueError: another policy.
    """
    if never_learned not in POLICIES:
        raise ValueError(unknown("value of never_learned", never_learned, POLICIES))
    is_right_REN = correct_REN > 0.5
    count_RN = (is_right_REN[:, :-1] & ~is_right_REN[:, 1:]).sum(1).float()
    never_RN = ~is_right_REN.any(1)
    if never_learned != "zero":
        count_RN[never_RN] = correct_REN.shape[1]
    score_N = count_RN.mean(0)
    if never_learned == "inf":
        score_N[never_RN.all(0)] = torch.inf
    return score_N.masked_fill(correct_REN.isnan().any(0).any(0), torch.nan)
