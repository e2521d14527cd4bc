"""How far a trained level can be pruned before its retrained successor leaves its linearly connected region.

Successive levels of iterative magnitude pruning are connected by a line without a barrier if and only if both are
matching, and how flat the trained level lies limits what one level can prune (Paul, Chen, Larsen et al., ICLR 2023,
arXiv 2210.03044, sections 3.1 and 3.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from kdprune.analysis.children import FIRST, begun_at, going_on, step_of
from kdprune.analysis.connectivity import in_words, kept_ids, read_end, session_of
from kdprune.analysis.line import Statistics, check_points, held_out_line
from kdprune.config import Config, StudentConfig
from kdprune.data.subset import load_subset
from kdprune.messages import counted
from kdprune.models.build import load_model
from kdprune.models.mask import Mask
from kdprune.models.mask_file import JSON, load_mask
from kdprune.models.prunable import prunable
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.dynamic import make_length
from kdprune.pipeline.job import view_settings
from kdprune.pipeline.lottery import next_mask
from kdprune.pipeline.recipes import dense
from kdprune.pipeline.train import train
from kdprune.runs.reading import SUBSET, WEIGHTS, read_config

log = logging.getLogger("kdprune")

Row = dict[str, Any]


def bisect(rises: Callable[[float], bool], probes: int) -> tuple[float, float]:
    """Between which two numbers in [0, 1] something rises, 2^-probes apart.

    At 0 it is taken not to, and at 1 to; neither is asked.
    """
    low, high = 0.0, 1.0
    for _ in range(probes):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return low, high


def prunable_fraction(
    run: Path,
    rewind_to: str = FIRST,
    tolerance: float = 0.02,
    probes: int = 5,
    *,
    points: int = 11,
    statistics: Statistics = "measured",
    output: str | None = None,
) -> tuple[tuple[float, float], list[Row], str]:
    """Bisect the part of a run's weights that magnitude pruning can take at once.

    A probe prunes a part of the weights that are left, those of the smallest magnitude at the end of the run, rewinds
    the others, trains them, and measures the line from the run's student to what that came to. It is a level of
    iterative magnitude pruning, and lies beside the run, to be found by the next command.

    Args:
        run: dense, or a level of a lottery.
        rewind_to: to which weights of the run: "0" for those that it began with, else a snapshot, as in `RUN@`.
        tolerance: the barrier from which on it counts as one; 0.02 in Frankle et al. 2020.
        probes: how many; the answer is known to 2^-probes.
        points, statistics: see `line_between`.
        output: folder for the probes (default: the run's output).

    Returns:
        The largest fraction found without a barrier, and the smallest one with one; a row a probe, by fraction:
        `fraction`, `density` (of the prunable weights), `error` (of the probe), `highest`, `barrier`, `run`; what
        became of BatchNorm's statistics, in words.

    Raises:
        ValueError: no such snapshot; no held-out data; a tolerance, points or probes that cannot be.
    """
    alphas_A = check_points(points)
    if not 0 < tolerance < 1:
        raise ValueError(f"--tolerance: {tolerance:g} given, allowed is (0, 1), such as 0.02")
    if not 1 <= probes <= 20:
        raise ValueError(f"--probes: {probes} given, allowed are 1 to 20")
    config, parent = read_config(run), read_end(str(run)).built
    session = session_of(run)
    budget, _ = make_length(config, session, load_subset(run / SUBSET))
    step = step_of(rewind_to, run, config, budget)
    if step >= budget.steps:
        raise ValueError(f"--rewind_to: {rewind_to} given, and {run} ends there; allowed is what came before")
    kept, views = kept_ids(run, session), view_settings(config, session.data, parent.spec)
    begun = begun_at(rewind_to, step, run, config.student)
    how, density = _how_pruned(run, config, parent)
    folder = Path(output or config.output)
    trained = probes * (budget.steps - step) * budget.batch_size
    log.info("%s: %s samples forward and backward, unless they are found", counted(probes, "probe"), f"{trained:,}")
    rows: list[Row] = []

    def rises(fraction: float) -> bool:
        mask = next_mask(run, 1 - density * (1 - fraction), how, config, session.accelerator)
        # A layer without weights is a bad probe, and no mistake.
        student = replace(dense(begun), mask=str(mask / JSON), allow_collapse=True, rewind_to=begun.rewind_to)
        probe = train(going_on(config, run, student, config.seed_of("data")), session, folder)
        ends = load_model(run / WEIGHTS), load_model(probe.path / WEIGHTS)
        line = held_out_line(ends, alphas_A, kept, views, session, statistics)
        found = {"density": load_mask(mask).density, "error": float(line.errors_A[-1]), "highest": line.highest}
        rows.append({"fraction": fraction, **found, "barrier": line.barrier, "run": str(probe.path)})
        return line.barrier > tolerance

    limits = bisect(rises, probes)
    return limits, sorted(rows, key=lambda row: row["fraction"]), in_words(statistics, parent)


def _how_pruned(run: Path, config: Config, parent: BuiltModel) -> tuple[StudentConfig, float]:
    """Which tensors of a run are pruned further, and the density that they have."""
    mask: Mask | None = load_mask(run) if (run / JSON).exists() else None
    if mask is None:
        return config.student, 1.0
    exclude = mask.made.get("exclude") or []
    scope: Literal["global", "layer"] = "layer" if mask.made.get("scope") == "layer" else "global"
    if set(prunable(parent.model, exclude).names) != set(mask.kept):
        raise ValueError(f"{run / JSON} does not say which tensors were left whole")
    return replace(config.student, prune_exclude=exclude, prune_scope=scope), mask.density
