"""What the arms of a section cost, and all of it together, each shared thing once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdprune.report.costs import Cost, Item, as_tuning, items_of, total
from kdprune.report.entries import Entry, caching_seconds
from kdprune.report.runs import read_run
from kdprune.report.sections import Section
from kdprune.report.statistics import mean_and_sd

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Bill:
    """What a section cost.

    Attributes:
        runs: of each finished run alone, by the index of its arm.
        seconds, passes: of a run of each arm alone, means over its seeds; None without a finished run.
        once: all of it, what is shared counted once.
        apart: the sum of all runs, each alone.
    """

    runs: Sequence[Sequence[Cost]]
    seconds: Sequence[float | None]
    passes: Sequence[float | None]
    once: Cost
    apart: float


def bill_of(section: Section) -> Bill:
    """Add up what a section cost."""
    trials: dict[Path, list[Item]] = {}
    items = [[_items(entry, trials) for entry in arm.finished] for arm in section.arms]
    runs = [[total(of_run) for of_run in of_arm] for of_arm in items]
    once = total(item for of_arm in items for of_run in of_arm for item in of_run)
    return Bill(
        runs,
        [mean_and_sd([cost.seconds for cost in costs])[0] for costs in runs],
        [mean_and_sd([cost.passes for cost in costs])[0] for costs in runs],
        once,
        sum(cost.seconds for costs in runs for cost in costs),
    )


def _items(entry: Entry, trials: dict[Path, list[Item]]) -> list[Item]:
    """All that a run is made of.

    Args:
        trials: what was read before, since the seeds of an arm share their trials.
    """
    found = items_of(entry.summary, entry.values, entry.caching)
    for trial in entry.trials:
        if trial.lost:
            found.append(Item("tuning", f"failed {trial.id}", trial.lost, 0.0))
        if trial.path is not None:
            if trial.path not in trials:
                trials[trial.path] = _of_trial(trial.path, trial.fills)
            found += trials[trial.path]
    return found


def _of_trial(path: Path, fills: Sequence[tuple[float, int]]) -> list[Item]:
    try:
        run = read_run(path)
    except (ValueError, OSError) as error:
        log.warning("%s, which chose settings, is in no cost: %s", path, error)
        return []
    return as_tuning(items_of(run.summary, run.values, caching_seconds(fills, run.values)))
