"""Rows of a sweep: a row for each run that was planned, whatever became of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdprune.report.entries import STUDY, Entry, Trial, Words, caching_seconds
from kdprune.report.runs import Run, read_run
from kdprune.report.study import Planned, Study
from kdprune.sweep.study import is_seed, value_words
from kdprune.sweep.tuning import at_an_end

log = logging.getLogger("kdprune")


def of_study(study: Study, name: str) -> Iterable[Entry]:
    """A row for each run that was planned, in the order of the study.

    One that stands at several coordinates, such as a run without a teacher at every α, has those that they share.

    Args:
        name: that tells the study apart from others.
    """
    place = {STUDY: name} if name else {}
    for planned in _merged(study.runs):
        entry = study.journal.get(planned.id, {})
        state, error = study.state(planned)
        run = _read(str(entry.get("path", ""))) if state == "finished" else None
        if state == "finished" and run is None:
            state, error = "lost", f"{entry.get('path')} is not there, or cannot be read"
        coordinates = place | {n: w for n, w in planned.coordinates.items() if not is_seed(n)}
        seeds = {n: w for n, w in planned.coordinates.items() if is_seed(n)}
        chosen = entry.get("tuned")
        tuned = {name: value_words(chosen[name]) for name in chosen} if isinstance(chosen, dict) else {}
        trials = tuple(_trial(study, id) for id in planned.tried)
        caching = caching_seconds(_fills(study, planned.needs), run.values if run is not None else {})
        yield Entry(coordinates, seeds, state, run, error, tuned, trials, caching, _ends(entry))


def _ends(entry: Mapping[str, Any]) -> Words:
    """See `at_an_end`; nothing of an entry that says not what was tried."""
    chosen, curve = entry.get("tuned"), entry.get("curve")
    rows = [row for row in curve if isinstance(row, dict)] if isinstance(curve, list) else []
    if not isinstance(chosen, dict) or not rows or any(name not in row for row in rows for name in chosen):
        return {}
    return at_an_end(chosen, rows)


def _merged(runs: Iterable[Planned]) -> Iterable[Planned]:
    groups: dict[str, list[Planned]] = {}
    for run in runs:
        groups.setdefault(run.id, []).append(run)
    for first, *others in groups.values():
        shared = {n: w for n, w in first.coordinates.items() if all(o.coordinates.get(n) == w for o in others)}
        yield replace(first, coordinates=shared)


def _trial(study: Study, id: str) -> Trial:
    entry = study.journal.get(id, {})
    if entry.get("state") != "finished" or not isinstance(entry.get("path"), str):
        return Trial(id, None, lost=_seconds(entry) if entry.get("state") == "failed" else 0.0)
    needs = study.nodes.get(id, {}).get("needs", ())
    return Trial(id, Path(entry["path"]), _fills(study, needs))


def _fills(study: Study, needs: Iterable[str]) -> tuple[tuple[float, int], ...]:
    """Seconds of each pass that fills cached targets ahead of a run, and how many teachers it asks."""
    nodes = {id: study.nodes.get(id, {}) for id in study.all_needs(needs)}
    several = {id: node.get("teachers") for id, node in nodes.items() if node.get("kind") == "targets"}
    return tuple(
        (_seconds(study.journal.get(id, {})), count if isinstance(count, int) and count > 0 else 1)
        for id, count in several.items()
    )


def _seconds(entry: Mapping[str, Any]) -> float:
    seconds = entry.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _read(path: str) -> Run | None:
    try:
        return read_run(Path(path))
    except (ValueError, OSError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
