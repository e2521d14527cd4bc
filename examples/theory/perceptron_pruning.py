"""Keep hard samples when data is abundant, easy ones when it is scarce: a student perceptron of maximal margin.

The setting of Sorscher et al. 2022 (arXiv 2206.14486, section 2): P = α_tot·N Gaussian samples with labels of a
teacher T; those with the smallest margin |T·x| (hard) or with the largest (easy) are kept, a fraction f of them, and a
student J of maximal margin is fitted to these. The probe that measures margins is the teacher itself (their θ = 0).

Theory. Let z = |T·x| of kept samples, whose density p is that of |N(0, 1)| cut off at its quantile f or 1 − f, let
α = f·α_tot, and J·T = R. By Gordon's comparison theorem, as for any max-margin classifier (Montanari et al. 2019, arXiv
1911.01544), there is a unit vector J with margin κ and overlap R as N → ∞ if and only if

    1 − R² ≥ α E[(κ − R z − √(1 − R²) h)₊²],   z ~ p, h ~ N(0, 1),

since J = R·T + √(1 − R²)·u, and u meets Gaussian components that the pruning has not looked at. The largest κ for which
some R does so is the margin, that R is the student's overlap, and its error is arccos(R)/π. The replica calculation of
the paper comes to the same two conditions, equality and stationarity in R. E over h is in closed form:
E[(a − s·h)₊²] = (a² + s²)Φ(a/s) + a·s·φ(a/s).

Simulation. N = 100; the margin is maximised exactly, as a least-distance problem (Lawson & Hanson 1974, chapter 23) by
non-negative least squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.optimize import nnls
from scipy.special import ndtr
from scipy.stats import norm

from kdprune.pipeline.drawing import INK, new_figure, save, style

Keep = Literal["hard", "easy", "random"]
COLORS: dict[Keep, str] = {"hard": "#2a78d6", "easy": "#c8443a", "random": "#6b6a63"}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


def margins(keep: Keep, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of z and their probabilities after pruning, for integrals: a quadrature with weights that sum to 1."""
    low = norm.isf(fraction / 2) if keep == "easy" else 0.0
    high = norm.isf((1 - fraction) / 2) if keep == "hard" and fraction < 1 else low + 8.0
    z = (high + low) / 2 + (high - low) / 2 * NODES
    density = norm.pdf(z) * WEIGHTS
    return z, density / density.sum()


def theory(samples: float, fraction: float, keep: Keep) -> float:
    """The student's test error as N → ∞.

    Args:
        samples: α_tot, samples before pruning for each dimension.
    """
    z, p = margins(keep, fraction)
    angles = np.geomspace(1e-3, np.pi / 2, 40)
    for _ in range(3):  # each time between the neighbours of the best one
        best = margin_at(angles, z, p, fraction * samples).argmax()
        low, high = angles[max(0, best - 1)], angles[min(len(angles) - 1, best + 1)]
        angles = np.linspace(low, high, 12)
    return float(angles[len(angles) // 2] / np.pi)


def margin_at(angles: np.ndarray, z: np.ndarray, p: np.ndarray, alpha: float) -> np.ndarray:
    """The largest κ for each angle between student and teacher: by bisection, since the right side grows with κ."""
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    low, high = np.zeros_like(angles), np.full_like(angles, 10 + alpha**-0.5)
    for _ in range(40):
        middle = (low + high) / 2
        a = middle[:, None] - cosine * z
        excess = (a**2 + sine**2) * ndtr(a / sine) + a * sine * np.exp(-((a / sine) ** 2) / 2) / np.sqrt(2 * np.pi)
        fits = alpha * (excess @ p) <= sine[:, 0] ** 2
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def max_margin(x_PN: np.ndarray) -> np.ndarray:
    """The vector w of least length with w·x ≥ 1 for all samples (times their labels)."""
    system = np.vstack([x_PN.T, np.ones(len(x_PN))])
    target = np.append(np.zeros(x_PN.shape[1]), 1.0)
    u, _ = nnls(system, target, maxiter=50 * len(x_PN))
    residual = system @ u - target
    return -residual[:-1] / residual[-1]


def simulate(samples: float, fraction: float, keep: Keep, dimensions: int, seed: int) -> float:
    """The test error of one student."""
    random = np.random.default_rng(seed)
    x_PN = random.standard_normal((round(samples * dimensions), dimensions))
    x_PN *= np.sign(x_PN[:, :1])  # the teacher is the first axis, and each sample is turned to its positive side
    order = {"hard": x_PN[:, 0], "easy": -x_PN[:, 0], "random": random.random(len(x_PN))}[keep].argsort()
    student = max_margin(x_PN[order[: max(1, round(fraction * len(x_PN)))]])
    return float(np.arccos(np.clip(student[0] / np.linalg.norm(student), -1, 1)) / np.pi)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("perceptron_pruning.png"))
    parser.add_argument("--dimensions", type=int, default=100)
    parser.add_argument("--students", type=int, default=5, help="simulated for each point")
    parser.add_argument("--fraction", type=float, default=0.3)
    given = parser.parse_args(words)
    dense, sparse = np.geomspace(0.7, 30, 30), np.geomspace(1, 16, 5)
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for keep, color in COLORS.items():
        left.plot(dense, [100 * theory(a, given.fraction, keep) for a in dense], color=color, label=keep)
        drawn = np.array([
            [100 * simulate(a, given.fraction, keep, given.dimensions, seed) for seed in range(given.students)]
            for a in sparse
        ])  # fmt: skip
        sd = drawn.std(1, ddof=1) if given.students > 1 else None
        left.errorbar(sparse, drawn.mean(1), sd, fmt="o", color=color, markersize=4, linewidth=1)
        print(f"{keep:7}", *(f"{a:.1f}: {mean:.1f}%" for a, mean in zip(sparse, drawn.mean(1), strict=True)))
    style(left, "samples before pruning, for each dimension", "test error, %")
    left.legend(frameon=False, fontsize=8, labelcolor=INK, title=f"kept: {given.fraction:g} of the samples\n"
                "lines: theory, dots: simulated", title_fontsize=8)  # fmt: skip
    for fraction, shade in ((0.8, "#bcd4ee"), (0.6, "#8ab4e4"), (0.4, "#4a8bd4"), (0.2, "#123a6b")):
        ratio = [theory(a, fraction, "hard") / theory(a, fraction, "easy") for a in dense]
        right.plot(dense, ratio, color=shade, label=f"{fraction:g}")
    right.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    style(right, "samples before pruning, for each dimension", "error of hard / error of easy (theory)")
    right.legend(frameon=False, fontsize=8, labelcolor=INK, title="kept", title_fontsize=8)
    for axes, ticks in ((left, [1, 3, 10, 30]), (right, [0.5, 1, 2, 3])):
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(places := [1, 3, 10, 30], [f"{place:g}" for place in places])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    print(save(figure, given.output))


if __name__ == "__main__":
    main()
