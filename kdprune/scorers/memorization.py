"""What only those who saw a sample get right. Shapes: N samples, M trainings."""

from __future__ import annotations

from torch import Tensor

from kdprune.messages import counted, listed
from kdprune.scorers.common.scorer import scorer


@scorer(
    "memorization",
    needs="memorization",
    reads=["trained", "untrained", "right_trained", "right_untrained", "ids"],
    hard="high",
    labels=True,
    paper="Feldman & Zhang 2020, arXiv 2008.03703",
    cost="M trainings on random 70% of the data",
)
def memorization(
    trained_N: Tensor, untrained_N: Tensor, right_trained_N: Tensor, right_untrained_N: Tensor, ids_N: Tensor
) -> Tensor:
    """P(right | trained on it) − P(right | not), over M trainings on random parts of the data (eq. 1).

    In [−1, 1]; high is hard. Published with parts of 70% and M = 2,000 to 4,000. The standard deviation of the estimate
    is up to √(1/(4·0.7·M) + 1/(4·0.3·M)): 0.11 for M = 100, 0.024 for 2,000.

    Args:
        trained_N, untrained_N: how many of the M trainings had the sample in their part, and how many had not.
        right_trained_N, right_untrained_N: how many of those are right about it.

    Raises:
        ValueError: a sample was part of every training, or of none, so that it has no such difference.
    """
    lost_N = (trained_N == 0) | (untrained_N == 0)
    if lost_N.any():
        count = int((trained_N + untrained_N)[lost_N][0])
        raise ValueError(
            f"nothing to compare: part of all {count} trainings or of none, {counted(int(lost_N.sum()), 'sample')} "
            f"(ids {listed(ids_N[lost_N].tolist())}): record more trainings"
        )
    return right_trained_N / trained_N - right_untrained_N / untrained_N
