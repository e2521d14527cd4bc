"""Run directories as rows: every setting and every result of a run under one name.

Settings have their configuration names (`train.lr`), results those of `summary.json`, with dots where it nests
(`student.name`, `cost.student_training.seconds`). Of several teachers the names are joined.
"""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdprune.artefact import LOCK, is_held, read_record
from kdprune.config import Config, dotted, to_dict
from kdprune.messages import did_you_mean, shown
from kdprune.outside import read_json
from kdprune.runs.reading import SUMMARY, read_config

log = logging.getLogger("kdprune")

# Of a summary: what is said elsewhere, or is for machines only. The keep fraction there is kept / total, and equals the
# subset.keep_fraction that was asked for only up to rounding.
_LEFT_OUT = ("key", "inputs", "teacher", "student", "name", "keep_fraction")


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        path: the directory.
        values: by name; what an unfinished run has no value of is None.
        summary: all of summary.json; of an unfinished run, nothing.
    """

    path: Path
    values: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict, repr=False)


def find_runs(folders: Iterable[Path], left_out: list[str] | None = None) -> list[Run]:
    """All runs in folders and in the folders below them, by path: students, teachers and proxies.

    Runs that cannot be read are named in a warning and left out.

    Args:
        left_out: is given the same messages.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        check_folder(folder)
        for settings in sorted(folder.rglob("config.yaml")):
            path = settings.parent
            try:
                if path not in found and read_record(path) is not None:
                    found[path] = read_run(path)
            except (ValueError, OSError) as error:
                log.warning("%s is left out: %s", path, error)
                if left_out is not None:
                    left_out.append(f"{path} is left out: {error}")
    return list(found.values())


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of runs.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing is there, or a file.
    """
    if not folder.exists():
        raise FileNotFoundError(f"no such folder: {folder}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; allowed are run directories, and folders of them")


def read_run(path: Path) -> Run:
    """A run directory, finished or not.

    Raises:
        FileNotFoundError, ValueError: no run directory; damaged files.
    """
    finished = (path / SUMMARY).is_file() and "files" in (read_record(path) or {})
    summary = read_json(path / SUMMARY) if finished else {}
    if not isinstance(summary, dict):
        raise ValueError(f"{path / SUMMARY} is damaged: it holds no summary")
    return Run(path, _values(path, summary, finished), summary)


def full_name(given: str, runs: Sequence[Run]) -> str:
    """The name that a user means: written in full, or its end (`lr` is `train.lr`, of several the shortest).

    Raises:
        ValueError: no such name, or several that are equally short.
    """
    known = list(dict.fromkeys([name for run in runs for name in run.values] + list(dotted(to_dict(Config())))))
    if given in known:
        return given
    ending = [name for name in known if name.endswith(f".{given}")]
    if not ending:
        near = did_you_mean(given, sorted({*known, *(name.rpartition(".")[2] for name in known)}), most=3, write=str)
        raise ValueError(f"unknown name {shown(given)}{near} (allowed are settings, and names in summary.json)")
    fewest = min(name.count(".") for name in ending)
    shortest = [name for name in ending if name.count(".") == fewest]
    if len(shortest) > 1:
        raise ValueError(f"{given} may be {' or '.join(shortest)}: write it in full")
    return shortest[0]


def _values(path: Path, summary: dict[str, Any], finished: bool) -> dict[str, Any]:
    settings = dotted(to_dict(read_config(path)))
    results = dotted({name: part for name, part in summary.items() if name not in _LEFT_OUT})
    epoch, top1 = _last_row(path)
    state = "finished" if finished else ("running" if is_locked(path) else "unfinished")
    found = {
        "run": path.name,
        "path": str(path),
        "state": state,
        **settings,
        "train.lr": _rate(summary, settings["train.lr"]),
        "epoch": epoch,
        "test_top1": top1,
        **_models(summary),
        **results,
        "cost.seconds": _total(summary, "seconds"),
        "cost.samples": _total(summary, "samples"),
    }
    return {sys.intern(name): value for name, value in found.items()}  # thousands of runs have the same names


def _models(summary: dict[str, Any]) -> dict[str, Any]:
    student, teachers = summary.get("student"), summary.get("teacher")
    student = student if isinstance(student, dict) else {}
    teachers = [one for one in teachers if isinstance(one, dict)] if isinstance(teachers, list) else []
    parameters = [one["parameters"] for one in teachers if isinstance(one.get("parameters"), int)]
    accuracies = [one["test_top1"] for one in teachers if isinstance(one.get("test_top1"), float)]
    return {
        "student.name": student.get("name"),
        "student.parameters": student.get("parameters"),
        "teacher.name": ",".join(str(one.get("name")) for one in teachers) or None,
        "teacher.parameters": sum(parameters) if parameters else None,
        "teacher.test_top1": sum(accuracies) / len(accuracies) if accuracies else None,
    }


def _rate(summary: dict[str, Any], given: float) -> float:
    """The learning rate that a run was trained with, which may follow from lr_base and the batch."""
    place: Any = summary
    for name in ("key", "train", "lr"):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, int | float) else given


def _total(summary: dict[str, Any], unit: str) -> float | None:
    """Seconds, or samples that passed forwards and backwards, of all that a run cost.

    What a kill made it do twice is in the cost of the training already, and is said once more as `lost`.
    """
    parts = summary.get("cost")
    if not isinstance(parts, dict):
        return None
    counts = dotted(parts)
    return sum(
        count
        for name, count in counts.items()
        if name.endswith(unit) and ".lost." not in f".{name}" and isinstance(count, int | float)
    )


def _last_row(path: Path) -> tuple[float | None, float | None]:
    """The epoch that a run has reached, and its last top-1, by its metrics.csv."""
    try:
        with open(path / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        measured = [row["test_top1"] for row in rows if row.get("test_top1")]
        return (float(rows[-1]["epoch"]) if rows else None), (float(measured[-1]) if measured else None)
    except FileNotFoundError:
        return None, None
    except (KeyError, ValueError, csv.Error) as error:
        raise ValueError(f"{path / 'metrics.csv'} is damaged: {error}") from None


def is_locked(path: Path) -> bool:
    """Whether a process works in a run directory now."""
    return is_held(path / LOCK)
