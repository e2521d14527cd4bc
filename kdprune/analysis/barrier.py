"""The error barrier between two children of a training, by the difficulty of samples (Paul et al. 2021, §5.2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdprune.analysis.children import CHILDREN, FOLDER, children_of, step_of
from kdprune.analysis.interpolation import barriers
from kdprune.analysis.line import check_points, wrong_on_line
from kdprune.analysis.ranks import by_difficulty, parts_of
from kdprune.config import Config
from kdprune.data.scores import Scores, load_scores
from kdprune.data.subset import load_subset
from kdprune.messages import listed
from kdprune.models.build import load_model
from kdprune.pipeline.dynamic import make_length
from kdprune.pipeline.job import view_settings
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.train import train
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import SUBSET, WEIGHTS, read_config
from kdprune.training.schedule import Budget

log = logging.getLogger("kdprune")


def error_barriers(
    run: Path, scores: Path, spawn: Sequence[str] = ("0",), parts: int = 10, points: int = 11, output: str | None = None
) -> list[dict[str, float | str]]:
    """Train two children from each spawning time to the end, and measure the line between them.

    Args:
        run: the parent.
        scores: a score file of its data.
        spawn: "0" for its first weights, else snapshots of it, as in `RUN@`: "5", "step300".
        parts: of equal size that the samples are cut into by their difficulty.
        points: of the line, its ends among them.
        output: folder for the children (default: the parent's output).

    Returns:
        A row a spawning time and part: `spawn`, `step`, `part` (1 is the easiest), `score` (its mean), `error` (mean
        of the children's), `middle` (error at α = ½ or next to it), `barrier`; training errors, on plain images.

    Raises:
        ValueError: no such snapshot; scores of other data; a spawning time at the very end; fewer than three points.
    """
    alphas_A = check_points(points)
    config = read_config(run)
    session = open_session(config, make_accelerator(config.train.precision, [], config.output))
    found = load_scores(scores, session.data.fingerprint, len(session.data.train))
    subset = load_subset(run / SUBSET, session.data.fingerprint, len(session.data.train))
    order = by_difficulty(found)
    parts_S = parts_of(order[np.isin(order, subset.ids)], parts)
    budget, _ = make_length(config, session, subset)
    steps = {name: step_of(name, run, config, budget) for name in spawn}
    check_before_end(steps, run, budget)
    recipes = children_of(config, run, steps, session)
    say_cost(steps, budget, points * len(subset.ids))
    folder = Path(output or config.output) / FOLDER
    rows: list[dict[str, float | str]] = []
    for name in spawn:
        ends = [train(recipe, session, folder).path for recipe in recipes[name]]
        line = _line(ends, subset.ids, parts_S, alphas_A, found, config, session)
        rows += [{"spawn": name, "step": steps[name], **row} for row in line]
    return rows


def check_before_end(steps: Mapping[str, int], run: Path, budget: Budget) -> None:
    """Refuse to spawn where nothing is left to be trained."""
    for name, step in steps.items():
        if step >= budget.steps:
            raise ValueError(
                f"--spawn: {name} given, and the training of {run} ends there; allowed is what came before"
            )


def say_cost(steps: Mapping[str, int], budget: Budget, passes: int) -> None:
    """Say what children and lines will cost.

    Args:
        passes: forward passes of samples for one line.
    """
    trained = sum(CHILDREN * (budget.steps - step) for step in steps.values()) * budget.batch_size
    log.info(
        "%d children of %s: %s samples forward and backward, unless they are found; and %s forward for the lines",
        CHILDREN * len(steps), listed(list(steps)), f"{trained:,}", f"{len(steps) * passes:,}",
    )  # fmt: skip


def _line(
    ends: list[Path],
    kept: np.ndarray,
    parts: list[np.ndarray],
    alphas_A: np.ndarray,
    scores: Scores,
    config: Config,
    session: Session,
) -> list[dict[str, float]]:
    """A row a part of the line between two runs' students."""
    first, second = (load_model(run / WEIGHTS) for run in ends)
    views = view_settings(config, session.data, first.spec)
    wrong_AN = wrong_on_line((first, second), alphas_A, kept, views, session)
    of_parts = barriers(wrong_AN, alphas_A, parts)
    return [
        {
            "part": number,
            "score": float(np.mean(scores.values[part])),
            "error": float(wrong_AN[[0, -1]][:, part].mean()),
            "middle": float(wrong_AN[len(alphas_A) // 2, part].mean()),
            "barrier": barrier,
        }
        for number, (part, barrier) in enumerate(zip(parts, of_parts, strict=True), start=1)
    ]
