"""What repetitions say of an arm and of the difference of two. Pure.

Shapes: n repetitions, or pairs of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95  # of confidence intervals


@dataclass(frozen=True)
class Difference:
    """The mean difference of two arms over the seeds that both have.

    Attributes:
        mean: of the n differences; None where no seed is common.
        half_width: of the interval mean ± half_width; None for n < 2, of which nothing is known of the spread.
        n: pairs.
        unpaired: repetitions of either arm that have no partner, and are left out.
    """

    mean: float | None
    half_width: float | None
    n: int
    unpaired: int


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean, and the standard deviation of a sample (n - 1) where there are two or more."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def paired_difference(
    arm: Mapping[Hashable, float], baseline: Mapping[Hashable, float], level: float = LEVEL
) -> Difference:
    """The difference arm - baseline, seed by seed: d̄ ± t_{(1+level)/2, n-1}·s_d/√n (Student 1908).

    The interval assumes differences that are independent and near normal, which few seeds cannot show.

    Args:
        arm, baseline: results by seed.
        level: of confidence, in (0, 1).
    """
    common = [seed for seed in arm if seed in baseline]
    unpaired = len(arm) + len(baseline) - 2 * len(common)
    differences = [arm[seed] - baseline[seed] for seed in common]
    mean, sd = mean_and_sd(differences)
    if sd is None:
        return Difference(mean, None, len(common), unpaired)
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, len(common) - 1))
    return Difference(mean, quantile * sd / math.sqrt(len(common)), len(common), unpaired)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of points (cost, value) that no other one beats, by rising cost: none is as cheap and better, or as good
    and cheaper. Of equal points, all are on the front."""
    front: list[int] = []
    best, best_cost = -math.inf, math.nan
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, value = points[index]
        if value > best or (value == best and cost == best_cost):
            front.append(index)
            best, best_cost = value, cost
    return front
