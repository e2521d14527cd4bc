"""Sampling by score and by a Beta density of the mean label probability. Shapes: M candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdprune.data.counter import key
from kdprune.messages import counted, listed
from kdprune.registry import register
from kdprune.selectors.common.arguments import check_number
from kdprune.selectors.common.order import blocks, highest, lowest, uniform
from kdprune.selectors.common.pool import MEAN_PROBABILITY, Pool, declare, extra_of, scores_of

SUM = 16.0  # of the density's two parameters
ANCHORS = 10  # hardest samples whose mean probability is μ
EDGE = 1e-6  # p̄ and μ keep this distance from 0 and 1, where the density may be infinite


def mean_of_hardest(pool: Pool) -> float:
    """μ_D: the mean label probability of the ten hardest samples."""
    chosen = highest(scores_of(pool), min(ANCHORS, len(pool.candidates)), pool.candidates, pool.seed)
    return round(float(extra_of(pool, MEAN_PROBABILITY)[chosen].mean(dtype=np.float64)), 6)


def resolve(pool: Pool, c: Any = 4.0, mu: Any = None) -> dict[str, Any]:
    """μ_D of the whole pool, unless it is given.

    Raises:
        ValueError: an argument out of its range; scores below 0; mean probabilities outside of [0, 1].
    """
    check_number("beta(c=…)", c, 0, np.inf, "()")
    for what, values_M, allowed, low, high in (
        ("scores", scores_of(pool), "0 and above, with the hard side high", 0, np.inf),
        (MEAN_PROBABILITY, extra_of(pool, MEAN_PROBABILITY), "0 to 1", 0, 1),
    ):
        outside = pool.candidates[~((values_M >= low) & (values_M <= high))]
        if len(outside):
            raise ValueError(
                f"beta: {what} must be {allowed}: not so for {counted(len(outside), 'sample')} ({listed(outside)})"
            )
    return {"c": c, "mu": mean_of_hardest(pool) if mu is None else check_number("beta(mu=…)", mu, 0, 1)}


@register("selectors", "beta")
@declare(needs=["scores", MEAN_PROBABILITY], resolve=resolve)
def beta(pool: Pool, c: float = 4.0, mu: float | None = None) -> np.ndarray:
    """Draw without replacement with weights score · Beta(p̄; 16 − b, b), b = 15 · (1 − μ) · (1 − r^c).

    Cho et al. 2025 (arXiv 2502.06905, §3.3), where the score is DUAL's and r the prune fraction: the more is left
    out, the more the density moves to easy samples. A draw is the order of exponential arrival times at the rates
    of the weights (Efraimidis & Spirakis 2006), each from a hash of the sample id.

    Args:
        c: how late the density moves: 4 for CIFAR, 11 for ImageNet.
        mu: μ_D; None: the mean p̄ of the ten hardest samples.
    """
    mu = mean_of_hardest(pool) if mu is None else mu
    b = (SUM - 1) * (1 - min(mu, 1 - EDGE)) * (1 - (1 - pool.count / len(pool.candidates)) ** c)
    scores_M, means_M = scores_of(pool), extra_of(pool, MEAN_PROBABILITY)
    # Rounding to float32 hides the last bits, in which logarithms of different machines differ.
    times_M = np.empty(len(pool.candidates), dtype=np.float32)
    for block in blocks(len(times_M)):
        weights = log_weights(scores_M[block], means_M[block], b)
        times_M[block] = np.log(-np.log(uniform(key(pool.seed, "beta"), pool.candidates[block]))) - weights
    return pool.candidates[lowest(times_M, pool.count, pool.candidates, pool.seed)]


def log_weights(scores_M: np.ndarray, means_M: np.ndarray, b: float) -> np.ndarray:
    """log(score · Beta(p̄; 16 − b, b)) but for a constant, float64 M; −inf where the score is 0."""
    p_M = np.clip(means_M.astype(np.float64), EDGE, 1 - EDGE)
    with np.errstate(divide="ignore"):
        return np.log(scores_M.astype(np.float64)) + (SUM - b - 1) * np.log(p_M) + (b - 1) * np.log1p(-p_M)
