"""A teacher of all data lowers the bias that distillation brings to a student on a subset: closed form and simulation.

The setting of Ben-Baruch et al. 2025 (arXiv 2403.07854, section 3): ridge regression, where the teacher sees a fraction
f_t of the samples and the student a fraction f ≤ f_t of them. Rows of X are samples, y = Xθ + ε, ε ~ N(0, σ²). With
A = XᵀX of the rows that a model sees, S = (A_s + λ)⁻¹ of the student and T = (A_t + λ)⁻¹ of the teacher,

    teacher   θ_t = T X_tᵀ y_t
    student   θ_s = argmin (1 − α)‖X_s θ − y_s‖² + α‖X_s θ − X_s θ_t‖² + λ‖θ‖²
                  = S (α A_s T X_tᵀ y_t + (1 − α) X_sᵀ y_s)
    bias      θ − E θ_s = λ S (I + α A_s T) θ          since S A_s = I − λS and T A_t = I − λT
    variance  σ²‖S (α A_s T X_tᵀ + (1 − α) X_sᵀ)‖²_F

T shrinks as the teacher sees more, and with it the second term of the bias. At α = 0 there is no such term:
distillation pays with bias for a smaller variance, and a teacher of all data pays least.

Shapes: N samples, K kept ones, D dimensions, R draws of the noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdprune.pipeline.drawing import INK, new_figure, save, style

FRACTIONS = np.linspace(0.1, 1.0, 10)
TEACHERS = ((None, "no teacher", "#6b6a63"), (0.0, "f_t = f", "#c8443a"), (0.6, "f_t = 0.6", "#d8a13a"),
            (1.0, "f_t = 1", "#2a78d6"))  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A design with its true parameters; models see its first rows.

    Attributes:
        x_ND: samples.
        theta_D: true parameters.
        noise: σ.
        ridge: λ.
    """

    x_ND: np.ndarray
    theta_D: np.ndarray
    noise: float = 1.0
    ridge: float = 10.0

    def operator(self, fraction: float, teacher: float | None, alpha: float) -> np.ndarray:
        """The student as a linear function of all labels, D×N: θ_s = operator · y.

        Args:
            fraction: f, in (0, 1].
            teacher: f_t, at least f; None without a teacher.
        """
        kept = round(fraction * len(self.x_ND))
        x_KD, identity = self.x_ND[:kept], np.eye(self.x_ND.shape[1])
        inverse = np.linalg.inv(x_KD.T @ x_KD + self.ridge * identity)
        of_labels = np.zeros_like(self.x_ND.T)
        of_labels[:, :kept] = x_KD.T
        if teacher is None:
            return inverse @ of_labels
        seen = self.x_ND[: max(kept, round(teacher * len(self.x_ND)))]
        of_teacher = np.zeros_like(self.x_ND.T)
        of_teacher[:, : len(seen)] = np.linalg.solve(seen.T @ seen + self.ridge * identity, seen.T)
        return inverse @ (alpha * x_KD.T @ x_KD @ of_teacher + (1 - alpha) * of_labels)

    def bias(self, fraction: float, teacher: float | None, alpha: float) -> np.ndarray:
        """θ − E θ_s in closed form, D."""
        kept = round(fraction * len(self.x_ND))
        gram, identity = self.x_ND[:kept].T @ self.x_ND[:kept], np.eye(self.x_ND.shape[1])
        inner = identity
        if teacher is not None:
            seen = self.x_ND[: max(kept, round(teacher * len(self.x_ND)))]
            inner = identity + alpha * gram @ np.linalg.inv(seen.T @ seen + self.ridge * identity)
        return self.ridge * np.linalg.solve(gram + self.ridge * identity, inner @ self.theta_D)

    def variance(self, fraction: float, teacher: float | None, alpha: float) -> float:
        """E ‖θ_s − E θ_s‖² in closed form."""
        return float(self.noise**2 * (self.operator(fraction, teacher, alpha) ** 2).sum())


def make_problem(samples: int = 200, dimensions: int = 40, seed: int = 0) -> Problem:
    """Gaussian samples, and parameters of length 3."""
    random = np.random.default_rng(seed)
    theta_D = random.standard_normal(dimensions)
    return Problem(random.standard_normal((samples, dimensions)), 3 * theta_D / np.linalg.norm(theta_D))


def simulated(
    problem: Problem, fraction: float, teacher: float | None, alpha: float, draws: int, seed: int = 1
) -> tuple[float, float]:
    """‖bias‖² and variance of students that were fitted to drawn labels.

    The squared mean of R errors is too large by variance/R, which is taken off.
    """
    random = np.random.default_rng(seed)
    clean_N = problem.x_ND @ problem.theta_D
    y_RN = clean_N + problem.noise * random.standard_normal((draws, len(clean_N)))
    students_RD = y_RN @ problem.operator(fraction, teacher, alpha).T
    variance = float(students_RD.var(0, ddof=1).sum())
    return float(((students_RD.mean(0) - problem.theta_D) ** 2).sum()) - variance / draws, variance


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("teacher_bias.png"))
    parser.add_argument("--draws", type=int, default=4000, help="of the noise, for each point")
    parser.add_argument("--alpha", type=float, default=0.8)
    given = parser.parse_args(words)
    problem = make_problem()
    figure = new_figure(10, 4)
    bias_axes, error_axes = figure.subplots(1, 2)
    for teacher, name, color in TEACHERS:
        closed = np.array([
            ((problem.bias(f, teacher, given.alpha) ** 2).sum(), problem.variance(f, teacher, given.alpha))
            for f in FRACTIONS
        ])  # fmt: skip
        drawn = np.array([simulated(problem, f, teacher, given.alpha, given.draws) for f in FRACTIONS])
        for axes, line, dots in ((bias_axes, closed[:, 0], drawn[:, 0]), (error_axes, closed.sum(1), drawn.sum(1))):
            axes.plot(FRACTIONS, line, color=color, label=name)
            axes.plot(FRACTIONS, dots, "o", color=color, markersize=4)
        print(f"{name:12}", *(f"{bias:.4f}" for bias in closed[:, 0]))
    style(bias_axes, "kept fraction f", "‖bias‖² of the student")
    style(error_axes, "kept fraction f", "E ‖θ_s − θ‖²: bias and variance")
    for axes in (bias_axes, error_axes):
        axes.set_yscale("log")
        axes.set_yticks(ticks := [0.03, 0.1, 0.3, 1, 3], [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    bias_axes.legend(frameon=False, fontsize=8, labelcolor=INK, title="lines: closed form, dots: simulated",
                     title_fontsize=8)  # fmt: skip
    print(save(figure, given.output))


if __name__ == "__main__":
    main()
