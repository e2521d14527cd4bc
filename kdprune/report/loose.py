"""Rows of runs that no sweep of the report has planned: an arm is what differs between them, but for the seeds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdprune.artefact import read_record
from kdprune.config import dotted
from kdprune.report.compare import differing
from kdprune.report.entries import ABOUT_TEACHER, CONTENTS, PILOT, STUDY, Entry
from kdprune.report.runs import Run
from kdprune.report.study import read_sweep
from kdprune.sweep.journal import FILE as JOURNAL
from kdprune.sweep.study import is_seed, value_words

log = logging.getLogger("kdprune")


def of_loose(runs: Sequence[Run], mixed: bool) -> list[Entry]:
    """Runs of no sweep: an arm is what differs between them, but for the seeds.

    What is about teachers is compared among runs that have one.
    """
    guided = [run for run in runs if run.values.get("teacher.models")]
    among_guided = set(differing(guided)) | {"teacher.models"}
    names = [n for n in differing(runs) if n in among_guided or not n.startswith((*ABOUT_TEACHER, "seeds.teacher"))]
    seeds = list(dict.fromkeys(["seed", *(name for name in names if is_seed(name))]))
    arms = [name for name in names if not is_seed(name)]
    place = {STUDY: "runs"} if mixed else {}
    found = []
    for run in sorted(runs, key=lambda run: [_in_order(run.values.get(name)) for name in arms]):
        has_teacher = bool(run.values.get("teacher.models"))
        told = [n for n in arms if has_teacher or n == "teacher.models" or not n.startswith(ABOUT_TEACHER)]
        coordinates = {name: value_words(run.values.get(name)) for name in told}
        own = {name: value_words(run.values.get(name)) for name in seeds if has_teacher or name != "seeds.teacher"}
        found.append(Entry(place | coordinates, own, run.values["state"], run))
    return found


def choosing_runs(folders: Iterable[Path]) -> set[Path]:
    """Runs that sweeps and plans below the folders have made to choose by, and that are none of their results.

    They are measured on a part of the training set, and have less data or steps than what was chosen.
    """
    chose: set[Path] = set()
    results: set[Path] = set()
    for journal in (file.absolute() for folder in folders for file in folder.rglob(JOURNAL)):
        try:
            study = read_sweep(journal.parent)
        except (ValueError, OSError) as error:
            log.warning("%s is left out: %s", journal.parent, error)
            continue
        tried = {id for run in study.runs for id in run.tried}
        tried |= {run.id for run in study.runs if PILOT in run.coordinates}
        wanted = {run.id for run in study.runs} - tried
        for id, entry in study.journal.items():
            if isinstance(entry.get("path"), str) and id in tried | wanted:
                # Where the output is now, wherever it was: OUTPUT/sweeps/NAME/journal.jsonl.
                path = journal.parent.parent.parent / Path(entry["path"]).name
                (results if id in wanted else chose).add(path.resolve())
    return chose - results


def told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, of which no two finished runs of other contents are at one place.

    Settings name files, teachers and data, which may have changed between two runs. Where they did, what differs in the
    runs' keys is a coordinate of all runs of the arm.
    """
    places: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.finished:
            places.setdefault((_place(entry), *sorted(entry.seeds.items())), []).append(entry)
    differ: dict[Any, dict[str, None]] = {}
    for (place, *_), several in places.items():
        keys = [_key(entry) for entry in several]
        names = dict.fromkeys(name for key in keys for name in key)
        found = [name for name in names if len({repr(key.get(name)) for key in keys}) > 1]
        differ.setdefault(place, {}).update(dict.fromkeys(found))
    told = []
    for entry in entries:
        names = differ.get(_place(entry), {})
        key = _key(entry) if names else {}
        contents = {CONTENTS: ", ".join(f"{name} {_short(key.get(name))}" for name in names)} if names else {}
        told.append(replace(entry, coordinates={**entry.coordinates, **contents}))
    return told


def _place(entry: Entry) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(entry.coordinates.items()))


def _key(entry: Entry) -> dict[str, Any]:
    """What a run was made of, by dotted names."""
    record = None if entry.run is None else read_record(entry.run.path)
    return {} if record is None else dotted(record["key"])


def _short(value: Any) -> str:
    """A value for a table; of a hash its beginning."""
    text = value_words(value)
    return text[:8] if len(text) in (32, 64) and text.isalnum() else text


def _in_order(value: Any) -> tuple[int, float, str]:
    """Nothing comes first, then numbers, then texts."""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return (0, 0.0, "") if value in (None, []) else (2, 0.0, str(value))


def by_data(runs: Sequence[Run]) -> Iterable[list[Run]]:
    """Runs of one data set together, as far as that can be told; what differs between data sets is no arm."""
    groups: dict[Any, list[Run]] = {}
    prints = {run.values["data.dataset"]: run.summary.get("dataset_fingerprint") for run in runs if run.summary}
    for run in runs:
        name = run.values["data.dataset"]
        groups.setdefault(run.summary.get("dataset_fingerprint", prints.get(name, name)), []).append(run)
    return groups.values()
