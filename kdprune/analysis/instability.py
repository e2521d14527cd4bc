"""From which step on a training ends in one linearly connected region, whatever the order of its samples.

Instability analysis (Frankle et al. 2020, arXiv 1912.05671, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.analysis.barrier import say_cost
from kdprune.analysis.children import FOLDER, children_of, step_of
from kdprune.analysis.connectivity import in_words, kept_ids, read_end, session_of
from kdprune.analysis.line import Statistics, check_points, held_out_line
from kdprune.data.subset import load_subset
from kdprune.data.view_settings import ViewSettings
from kdprune.models.build import load_model
from kdprune.pipeline.dynamic import make_length
from kdprune.pipeline.job import view_settings
from kdprune.pipeline.session import Session
from kdprune.pipeline.train import train
from kdprune.runs.reading import SUBSET, WEIGHTS, read_config

Row = dict[str, Any]


def instabilities(
    run: Path,
    spawn: Sequence[str] = ("0",),
    points: int = 11,
    statistics: Statistics = "measured",
    output: str | None = None,
) -> tuple[list[Row], str]:
    """Train two children from each spawning time to the end, and measure the line between them on held-out data.

    Children of the very end are the parent itself.

    Args:
        run: the parent.
        spawn: "0" for the weights that it began with, else snapshots of it, as in `RUN@`: "5", "step300".
        points: of the line, its ends among them.
        statistics: of BatchNorm, see `line_between`.
        output: folder for the children (default: the parent's output).

    Returns:
        A row a spawning time, by step: `spawn`, `step`, `error` (mean of the children's), `highest` (error on the
        line), `barrier` (their difference); and what became of BatchNorm's statistics, in words.

    Raises:
        ValueError: no such snapshot, or a training that cannot go on from there; no held-out data; fewer than three
            points.
    """
    alphas_A = check_points(points)
    config, parent = read_config(run), read_end(str(run)).built
    session = session_of(run)
    budget, _ = make_length(config, session, load_subset(run / SUBSET))
    steps = {name: step_of(name, run, config, budget) for name in spawn}
    recipes = children_of(config, run, {name: step for name, step in steps.items() if step < budget.steps}, session)
    kept, views = kept_ids(run, session), view_settings(config, session.data, parent.spec)
    assert session.data.test is not None
    say_cost(steps, budget, points * len(session.data.test))
    folder = Path(output or config.output) / FOLDER
    rows: list[Row] = []
    for name in sorted(steps, key=lambda name: steps[name]):
        ends = [run, run]
        if name in recipes:
            ends = [train(recipe, session, folder).path for recipe in recipes[name]]
        rows.append({"spawn": name, "step": steps[name], **_row(ends, alphas_A, kept, views, session, statistics)})
    return rows, in_words(statistics, parent)


def _row(
    ends: list[Path],
    alphas_A: np.ndarray,
    kept: np.ndarray,
    views: ViewSettings,
    session: Session,
    statistics: Statistics,
) -> dict[str, float]:
    first, second = (load_model(end / WEIGHTS) for end in ends)
    line = held_out_line((first, second), alphas_A, kept, views, session, statistics)
    return {"error": line.error, "highest": line.highest, "barrier": line.barrier}
