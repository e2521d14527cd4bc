"""The rows of a report: runs with the arm and the seed that they stand for, from sweeps and from folders of runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdprune.artefact import read_record
from kdprune.config import dotted
from kdprune.messages import counted
from kdprune.report.compare import differing
from kdprune.report.runs import Run, check_folder, find_runs, read_run
from kdprune.report.study import Planned, Study, is_sweep, read_sweep
from kdprune.sweep.journal import FILE as JOURNAL
from kdprune.sweep.study import is_seed, value_words
from kdprune.sweep.tuning import at_an_end

log = logging.getLogger("kdprune")

CONTENTS = "contents"  # the coordinate that tells runs of equal settings apart
PILOT = "pilot"  # the coordinate of the runs of a plan
STUDY = "study"  # the coordinate that tells several sweeps of one report apart
ABOUT_TEACHER = ("teacher.", "distill.")

Words = dict[str, str]


@dataclass(frozen=True)
class Trial:
    """A run that tried a choice of settings.

    Attributes:
        id: in its study.
        path: of its directory; None where it failed.
        fills: see `_fills`.
        lost: seconds that a failure took.
    """

    id: str
    path: Path | None
    fills: tuple[tuple[float, int], ...] = ()
    lost: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A run of a report.

    Attributes:
        coordinates: what its arm is, in words; all but the seeds.
        seeds: that tell it apart from other runs of the arm.
        state: finished, running, unfinished, waiting, failed, lost.
        run: its directory, where there is one.
        tuned: settings that were chosen for it, in words.
        ends: of these, the ones that are the smallest or largest of the tried ones, which is said by this word.
        trials: the runs that chose them.
        caching: seconds of filling its cached targets ahead of it, which no summary has.
    """

    coordinates: Words
    seeds: Words
    state: str
    run: Run | None
    error: str = ""
    tuned: Words = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    caching: float = 0.0
    ends: Words = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """Settings and results by dotted names; nothing of a run without a directory."""
        return {} if self.run is None else self.run.values

    @property
    def summary(self) -> dict[str, Any]:
        return {} if self.run is None else self.run.summary

    @property
    def finished(self) -> bool:
        return self.state == "finished" and self.run is not None

    @property
    def top1(self) -> float | None:
        """At the last epoch, of a finished run, in percent."""
        top1 = self.values.get("test_top1") if self.finished else None
        return 100 * top1 if isinstance(top1, int | float) else None


@dataclass(frozen=True)
class Gathered:
    """What a report is of.

    Attributes:
        entries: in the order in which they were found.
        studies: the sweeps among the sources.
        notes: what a reader should know: what was left out, what the studies warn of.
        axis_of: names that change together with each name.
    """

    entries: list[Entry]
    studies: list[Study]
    notes: list[str]
    axis_of: Mapping[str, frozenset[str]]
    warnings: list[str] = field(default_factory=list)


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
    entries = [entry for study, name in zip(studies, _names(studies), strict=True) for entry in _of_study(study, name)]
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
    for runs in _by_data(loose):
        apart = told_apart(_loose(runs, mixed))
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


def _names(studies: Sequence[Study]) -> list[str]:
    """What tells several studies apart: their names, or where these are the same, their folders."""
    if len(studies) < 2:
        return [""] * len(studies)
    names = [study.name for study in studies]
    return names if len(set(names)) == len(names) else [str(study.folder) for study in studies]


def _of_study(study: Study, name: str) -> Iterable[Entry]:
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


def caching_seconds(fills: Iterable[tuple[float, int]], values: Mapping[str, Any]) -> float:
    """Seconds of filling a run's cached targets; where one pass filled those of several teachers, its own part.

    Args:
        fills: seconds of each pass, and how many teachers it asked.
        values: of the run by dotted names.
    """
    teachers = values.get("teacher.models")
    count = len(teachers) if isinstance(teachers, list) else 1
    return sum(min(1.0, count / several) * seconds for seconds, several in fills)


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


def _loose(runs: Sequence[Run], mixed: bool) -> list[Entry]:
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


def _by_data(runs: Sequence[Run]) -> Iterable[list[Run]]:
    """Runs of one data set together, as far as that can be told; what differs between data sets is no arm."""
    groups: dict[Any, list[Run]] = {}
    prints = {run.values["data.dataset"]: run.summary.get("dataset_fingerprint") for run in runs if run.summary}
    for run in runs:
        name = run.values["data.dataset"]
        groups.setdefault(run.summary.get("dataset_fingerprint", prints.get(name, name)), []).append(run)
    return groups.values()


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, of which none says the same as another: runs that two studies share stand in both."""
    found: dict[tuple[Any, ...], Entry] = {}
    for entry in entries:
        place = (*sorted(entry.coordinates.items()), *sorted(entry.seeds.items()))
        key = (place, None if entry.run is None else entry.run.path.resolve())
        found.setdefault(key, entry)
    return list(found.values())


def _read(path: str) -> Run | None:
    try:
        return read_run(Path(path))
    except (ValueError, OSError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
