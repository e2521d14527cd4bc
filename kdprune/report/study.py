"""A sweep as its folder tells it: study.json (what was to be made) and journal.jsonl (what became of it)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdprune.artefact import is_held
from kdprune.outside import MAPPING, TEXT, check_fields, check_format, list_of, mapping_of, read_json
from kdprune.sweep.journal import FILE as JOURNAL
from kdprune.sweep.journal import LOCK, Journal

FILE, FORMAT = "study.json", "kdprune study 1"
LOGS = "logs"

Words = dict[str, str]


@dataclass(frozen=True)
class Planned:
    """A run of a study.

    Attributes:
        id: of its entries in the journal.
        coordinates: where it stands on the axes, in words.
        needs: ids of what is made before it.
        tried: ids of the runs that choose its tuned settings.
    """

    id: str
    coordinates: Words
    needs: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A sweep.

    Attributes:
        folder: of it.
        axes: names that change together.
        nodes: what comes before its runs, by id: `kind` (training, observation, targets, or trial, a run that tries a
            choice), `what`, `needs`, and of cached targets how many `teachers`.
        journal: of each id the latest entry; `seconds` are those of all attempts, of which the finished one is counted
            once, since what is found again takes none.
        running: whether a process leads it now.
        complete_record: whether it says which runs share what; sweeps of an early version did not.
    """

    folder: Path
    name: str
    axes: tuple[tuple[str, ...], ...]
    tuned: tuple[str, ...]
    warnings: tuple[str, ...]
    runs: tuple[Planned, ...]
    nodes: Mapping[str, Mapping[str, Any]]
    journal: Mapping[str, Mapping[str, Any]] = field(repr=False)
    running: bool = False
    complete_record: bool = True

    def state(self, run: Planned) -> tuple[str, str]:
        """How far a run is (finished, failed, lost, running or waiting), and the error if there was one."""
        entry = self.journal.get(run.id, {})
        if entry.get("state") == "finished":
            return "finished", ""
        if entry.get("state") == "failed":
            return "failed", str(entry.get("error", ""))
        for id in self.all_needs(run.needs):
            if self.journal.get(id, {}).get("state") == "failed":
                return "lost", f"needs {self.nodes.get(id, {}).get('what', id)}, which failed"
        begun = self.running and (self.folder / LOGS / f"{run.id}.log").is_file()
        return ("running" if begun else "waiting"), ""

    def all_needs(self, ids: Iterable[str]) -> list[str]:
        """Ids of nodes, and of all that they are made of."""
        found: dict[str, None] = {}
        waiting = list(ids)
        while waiting:
            id = waiting.pop()
            if id not in found:
                found[id] = None
                waiting += self.nodes.get(id, {}).get("needs", [])
        return list(found)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / FILE).is_file() or (folder / JOURNAL).is_file()


_IDS = list_of(TEXT)
_STUDY = {
    "name": TEXT, "axes": list_of(_IDS), "tuned": _IDS, "warnings": _IDS, "nodes": mapping_of(MAPPING),
    "runs": list_of(MAPPING),
}  # fmt: skip
_RUN = {"id": TEXT, "coordinates": mapping_of(TEXT), "needs": _IDS, "tried": _IDS}


def read_sweep(folder: Path) -> Study:
    """Read the folder of a sweep, which may be under way.

    Raises:
        ValueError: study.json is damaged.
    """
    journal = _journal(folder)
    if not (folder / FILE).is_file():
        return _from_journal(folder, journal)
    content, where = read_json(folder / FILE), str(folder / FILE)
    check_format(content, FORMAT, where, "a study")
    check_fields(content, _STUDY, where)
    for run in content["runs"]:
        check_fields(run, _RUN, f"{where}, 'runs',")
    for id, node in content["nodes"].items():
        check_fields(node, {"kind": TEXT, "what": TEXT, "needs": _IDS}, f"{where}, {id!r},")
    runs = [Planned(r["id"], r["coordinates"], tuple(r["needs"]), tuple(r["tried"])) for r in content["runs"]]
    return Study(
        folder, content["name"], tuple(map(tuple, content["axes"])), tuple(content["tuned"]),
        tuple(content["warnings"]), tuple(runs), content["nodes"], journal, is_led(folder),
    )  # fmt: skip


def is_led(folder: Path) -> bool:
    """Whether a process is at the sweep in a folder now."""
    return is_held(folder / LOCK)


def _journal(folder: Path) -> dict[str, dict[str, Any]]:
    journal = Journal(folder)
    finished: dict[str, float] = {}
    others: dict[str, float] = {}  # of attempts that failed or were stopped
    for entry in journal.entries():
        id, seconds = entry["id"], entry.get("seconds")
        if isinstance(seconds, int | float) and entry.get("state") == "finished":
            finished[id] = max(float(seconds), finished.get(id, 0.0))
        elif isinstance(seconds, int | float):
            others[id] = others.get(id, 0.0) + float(seconds)
    every = {id: finished.get(id, 0.0) + others.get(id, 0.0) for id in finished | others}
    return {id: {**entry, "seconds": every.get(id)} for id, entry in journal.last().items()}


def _from_journal(folder: Path, journal: Mapping[str, Mapping[str, Any]]) -> Study:
    """A sweep of a version that wrote no study.json: what was begun of it."""
    placed = {id: entry for id, entry in journal.items() if isinstance(entry.get("coordinates"), dict)}
    finals = [id for id in placed if id.startswith("final-")] or list(placed)
    runs = []
    for id in finals:
        coordinates = {str(name): str(value) for name, value in placed[id]["coordinates"].items()}
        tried = [other for other in placed if other not in finals and _same_arm(placed[other], coordinates)]
        runs.append(Planned(id, coordinates, tried=tuple(tried)))
    tuned = list(dict.fromkeys(name for id in finals for name in _mapping(placed[id].get("tuned"))))
    names = dict.fromkeys(name for run in runs for name in run.coordinates)
    return Study(
        folder, folder.name, tuple((name,) for name in names), tuple(tuned), (), tuple(runs), {}, journal,
        is_led(folder), complete_record=False,
    )  # fmt: skip


def _same_arm(entry: Mapping[str, Any], coordinates: Words) -> bool:
    from kdprune.sweep.study import is_seed

    there = {name: value for name, value in entry["coordinates"].items() if not is_seed(name)}
    return there == {name: value for name, value in coordinates.items() if not is_seed(name)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
