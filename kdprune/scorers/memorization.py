"""What only those who saw a sample get right. Shapes: N samples, M trainings."""

from __future__ import annotations

from torch import Tensor

from kdprune.messages import listed
from kdprune.scorers.common.scorer import scorer


@scorer(
    "memorization",
    needs="memorization",
    reads=["correct", "trained", "ids"],
    hard="high",
    labels=True,
    paper="Feldman & Zhang 2020, arXiv 2008.03703",
    cost="M trainings on random 70% of the data",
)
def memorization(correct_NM: Tensor, trained_NM: Tensor, ids_N: Tensor) -> Tensor:
    """P(right | trained on it) − P(right | not), over M trainings on random parts of the data (eq. 1).

    In [−1, 1]; high is hard. Published with parts of 70% and M = 2,000 to 4,000. The standard deviation of the estimate
    is up to √(1/(4·0.7·M) + 1/(4·0.3·M)): 0.11 for M = 100, 0.024 for 2,000.

    Raises:
        ValueError: a sample was part of every training, or of none, so that it has no such difference.
    """
    is_observed_N = ~(correct_NM.isnan() | trained_NM.isnan()).any(1)
    inside_N, count = trained_NM.sum(1), trained_NM.shape[1]
    lost_N = is_observed_N & ((inside_N == 0) | (inside_N == count))
    if lost_N.any():
        raise ValueError(
            f"{int(lost_N.sum()):,} samples were part of all {count} trainings or of none, so that there is nothing to "
            f"compare (ids {listed(ids_N[lost_N].tolist())}): record more trainings"
        )
    with_N = (correct_NM * trained_NM).sum(1) / inside_N
    without_N = (correct_NM * (1 - trained_NM)).sum(1) / (count - inside_N)
    return with_N - without_N
