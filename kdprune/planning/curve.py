"""Accuracy against steps: a curve through short runs, carried on to a longer one with its uncertainty. Pure.

With e the error on new samples and o = e/(1 − e) its odds, the curve of an arm is

    o(s) = o(S) · (r + (1 − r)·(s/S)^−q)

for s steps, S those of its longest run: a power law that ends at a share r ∈ [0, 1] of the odds at S (Hestness et al.
2017, arXiv 1712.00409; Rosenfeld et al. 2020, arXiv 1909.12673, eq. 5). In odds it bends where errors are near
chance, which makes it Morgan, Mercer and Flodin's curve, one of those that extrapolate best (Viering and Loog 2023,
arXiv 2103.10948). Short runs say little of r, which decides what long ones reach. So no single curve is taken: every
shape of a grid is weighed by how well it fits (Domhan et al. 2015, with the level integrated out instead of sampled),
and a prediction is the mixture of all.

Shapes: O observed runs, L lengths of them, R asymptotes × Q exponents = K shapes, T quantiles of a t-distribution, A
arms, Y log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtrit

LEVEL = 0.9  # of the intervals
DRIFT = 0.1
"""Standard deviation of what the curve misses at e times more or fewer steps than the longest run's, in log-odds."""
SEEDS = 0.05  # of what seeds add to the noise of counting, in log-odds
_BELIEF = 4.0  # runs that the noise of counting is worth beside what repeated runs say

_ASYMPTOTES_R = np.linspace(0, 1, 17)
_EXPONENTS_Q = np.geomspace(0.1, 2.5, 17)
_MEDIAN_EXPONENT, _SPREAD = 0.7, 0.7  # of the log-normal prior
_TAILS_T = (np.arange(99) + 0.5) / 99
_GRID = 801  # points of log-odds at which distributions are compared
_NEGLIGIBLE = 1e-5  # of the weight of the likeliest shape


@dataclass(frozen=True)
class Prediction:
    """The accuracy that a run is expected to reach, in [0, 1].

    Attributes:
        low, high: of the interval that is to hold with probability `LEVEL`.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """How far runs lie from their curve.

    Attributes:
        scale: of the variance, in units of what counting correct answers and `SEEDS` come to.
        freedom: degrees of freedom of the t-distributions that follow.
    """

    scale: float
    freedom: float


def log_odds(top1: np.ndarray | float, count: int) -> np.ndarray:
    """Log-odds of the error, for `count` judged samples; finite if all of them are right, too."""
    wrong = (1 - np.asarray(top1, dtype=float)) * count
    return logit((wrong + 0.5) / (count + 1))


def variance(log_odds: np.ndarray | float, count: int) -> np.ndarray:
    """Of measured log-odds: that of a binomial proportion, and that of seeds."""
    error = expit(np.asarray(log_odds, dtype=float))
    return 1 / ((count + 1) * error * (1 - error)) + SEEDS**2


def pooled_noise(repeats: Sequence[Sequence[float]], count: int) -> Noise:
    """The noise that all arms share, by runs that differ in their seed alone.

    Args:
        repeats: accuracies of such runs, a sequence for each arm and length.
        count: samples that each was measured on.
    """
    squares, freedom = 0.0, 0
    for group in repeats:
        values = log_odds(np.array(group), count)
        squares += float(((values - values.mean()) ** 2).sum() / variance(values.mean(), count))
        freedom += len(group) - 1
    return Noise((_BELIEF + squares) / (_BELIEF + freedom), _BELIEF + freedom)


class Curve:
    """The curves that may be behind the runs of one arm, weighed.

    Args:
        steps: of each run.
        top1: that each reached on `count` samples, in [0, 1].
        noise: of all arms.

    Raises:
        ValueError: runs of fewer than two lengths, through which anything could be laid.
    """

    def __init__(self, steps: Sequence[int], top1: Sequence[float], count: int, noise: Noise) -> None:
        if len(set(steps)) < 2:
            raise ValueError(f"a curve needs runs of two lengths or more, {len(set(steps))} given")
        self.count, self.noise, self.longest = count, noise, max(steps)
        self._quantiles_T = stdtrit(noise.freedom, _TAILS_T)
        steps_L, length_O, runs_L = np.unique(steps, return_inverse=True, return_counts=True)
        odds_L = np.bincount(length_O, log_odds(np.array(top1), count)) / runs_L
        # More seeds of a length say nothing more of what the curve misses there, so that is no part of their noise.
        weights_L = 1 / (noise.scale * variance(odds_L, count) / runs_L + self._drift(steps_L))
        above_LK = odds_L[:, None] - self._shapes(steps_L)
        self.level_K = weights_L @ above_LK / weights_L.sum()
        self.level_variance = float(1 / weights_L.sum())
        misfit_K = weights_L @ (above_LK - self.level_K) ** 2
        # The level is integrated out of a t-distribution of L dimensions, which leaves one of L - 1.
        fit_K = -0.5 * (noise.freedom + len(steps_L) - 1) * np.log1p(misfit_K / noise.freedom) + _log_prior()
        likely_K = np.exp(fit_K - fit_K.max())
        self._kept = likely_K > _NEGLIGIBLE
        self.weights_K = likely_K[self._kept] / likely_K[self._kept].sum()
        self.level_K = self.level_K[self._kept]

    def distribution(self, steps: int, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of the error of a run of `steps` steps, ascending, and the probability up to each.

        Args:
            count: samples that it will be measured on, other ones than those of the observed runs (default: those).
        """
        center_K = self.level_K + self._shapes(np.array([float(steps)]))[0][self._kept]
        variance_K = self.noise.scale * variance(center_K, self.count) + self.level_variance
        variance_K = variance_K + self._drift(np.array(float(steps)))
        if count is not None:
            variance_K = variance_K + variance(center_K, count) - SEEDS**2
        odds_KT = center_K[:, None] + np.sqrt(variance_K)[:, None] * self._quantiles_T
        mass_KT = np.broadcast_to(self.weights_K[:, None] / len(self._quantiles_T), odds_KT.shape)
        order = np.argsort(odds_KT, axis=None)
        mass = mass_KT.reshape(-1)[order]
        return odds_KT.reshape(-1)[order], np.cumsum(mass) - mass / 2

    def predict(self, steps: int, count: int | None = None, level: float = LEVEL) -> Prediction:
        """What a run of `steps` steps will reach; see `distribution`."""
        odds, below = self.distribution(steps, count)
        middle, low, high = np.interp([0.5, (1 - level) / 2, (1 + level) / 2], below, odds)
        return Prediction(float(expit(-middle)), float(expit(-high)), float(expit(-low)))

    def _shapes(self, steps_L: np.ndarray) -> np.ndarray:
        """Log-odds above those of the longest run, for every shape; L×K."""
        power_LQ = (steps_L[:, None] / self.longest) ** -_EXPONENTS_Q
        share_LRQ = _ASYMPTOTES_R[:, None] + (1 - _ASYMPTOTES_R[:, None]) * power_LQ[:, None, :]
        return np.log(share_LRQ).reshape(len(steps_L), -1)

    def _drift(self, steps: np.ndarray) -> np.ndarray:
        return (DRIFT * np.log(steps / self.longest)) ** 2


def chances(distributions: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The probability of each run to have the lowest error, by distributions that are taken for independent."""
    # What lies beyond the tail of the last run to begin or to end decides nothing, and would make the grid coarse.
    lowest = min(float(np.interp(1e-6, below, odds)) for odds, below in distributions)
    highest = min(float(np.interp(1 - 1e-6, below, odds)) for odds, below in distributions)
    grid_Y = np.linspace(lowest, highest, _GRID)
    below_AY = np.stack([np.interp(grid_Y, odds, below, left=0, right=1) for odds, below in distributions])
    mass_AY = np.diff(below_AY, axis=1, prepend=0.0)
    above_AY = 1 - below_AY + mass_AY / 2
    others_AY = np.stack([np.delete(above_AY, arm, axis=0).prod(0) for arm in range(len(below_AY))])
    chance_A = (mass_AY * others_AY).sum(1)
    return chance_A / chance_A.sum()


def _log_prior() -> np.ndarray:
    """Of the shapes; K. All asymptotes are as likely, exponents are log-normal."""
    exponent_Q = -0.5 * (np.log(_EXPONENTS_Q / _MEDIAN_EXPONENT) / _SPREAD) ** 2
    return np.broadcast_to(exponent_Q, (len(_ASYMPTOTES_R), len(_EXPONENTS_Q))).reshape(-1)
