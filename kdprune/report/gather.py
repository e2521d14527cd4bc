"""The runs of a report, from sweeps and from folders of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdprune.messages import counted
from kdprune.report.entries import CONTENTS, Entry, Gathered
from kdprune.report.loose import by_data, choosing_runs, of_loose, told_apart
from kdprune.report.planned import of_study
from kdprune.report.runs import check_folder, find_runs
from kdprune.report.study import Study, is_sweep, read_sweep


def gather(sources: Sequence[Path]) -> Gathered:
    """Find the runs of sweeps and folders.

    Args:
        sources: folders of sweeps (`<output>/sweeps/NAME`), run directories, folders of them.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no run at all; a damaged study.json.
    """
    for source in sources:
        check_folder(source)
    studies = [read_sweep(source) for source in sources if is_sweep(source)]
    entries = [entry for study, name in zip(studies, _names(studies), strict=True) for entry in of_study(study, name)]
    notes: list[str] = []
    known = {entry.run.path.resolve() for entry in entries if entry.run is not None}
    folders = [source for source in sources if not is_sweep(source)]
    loose = [run for run in find_runs(folders, notes) if run.path.resolve() not in known]
    students = [run for run in loose if run.values.get("seeds.role") == "student"]
    if students or entries:
        if left := len(loose) - len(students):
            notes.append(f"{left:,} teachers and proxies in the folders are no rows of their own.")
        loose = students
    tried = choosing_runs(folders)
    arms = [run for run in loose if run.path.resolve() not in tried]
    if arms or entries:
        if left := len(loose) - len(arms):
            notes.append(
                f"{counted(left, 'run')} that sweeps and plans made to choose by are no rows of their own, and in no "
                "cost here; in the report of a sweep they are the cost of tuning."
            )
        loose = arms
    mixed = bool(entries)
    for runs in by_data(loose):
        apart = told_apart(of_loose(runs, mixed))
        if several := sum(CONTENTS in entry.coordinates for entry in apart):
            notes.append(f"{several:,} runs have settings of others and other contents, which tell their arms apart.")
        entries += apart
    if not entries:
        raise ValueError(f"{', '.join(map(str, sources))}: no run there; allowed are folders of sweeps "
                         "(OUTPUT/sweeps/NAME), run directories and folders of them")  # fmt: skip
    entries = _once(entries)
    notes += [
        f"{study.name} was made by a version that did not write down what its runs share: the seconds of filling "
        "cached targets are in no arm's cost."
        for study in studies
        if not study.complete_record and any(id.startswith("targets-") for id in study.journal)
    ]
    warnings = list(dict.fromkeys(warning for study in studies for warning in study.warnings))
    axis_of = {name: frozenset(axis) for study in studies for axis in study.axes for name in axis}
    return Gathered(entries, studies, notes, axis_of, warnings)


def _names(studies: Sequence[Study]) -> list[str]:
    """What tells several studies apart: their names, or where these are the same, their folders."""
    if len(studies) < 2:
        return [""] * len(studies)
    names = [study.name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.folder) for study in studies]


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, of which none says the same as another: runs that two studies share stand in both."""
    found: dict[tuple[Any, ...], Entry] = {}
    for entry in entries:
        place = (*sorted(entry.coordinates.items()), *sorted(entry.seeds.items()))
        key = (place, None if entry.run is None else entry.run.path.resolve())
        found.setdefault(key, entry)
    return list(found.values())
