"""What a run was made of: its inputs, and theirs, as far as they are there to say it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdprune.artefact import FILE, damage, key_hash, read_record
from kdprune.messages import counted
from kdprune.models.locate import snapshots
from kdprune.models.saved import stored_hash
from kdprune.runs.reading import SUMMARY, WEIGHTS, read_summary
from kdprune.scorers.common.observation import digests_hash


@dataclass
class Node:
    """One thing in the tree of what a run was made of.

    Attributes:
        title: what it is, in a line.
        details: name and value, for a person.
        problem: what is wrong with it now, if anything.
        inputs: what it was made of.
    """

    title: str
    details: dict[str, str] = field(default_factory=dict)
    problem: str | None = None
    inputs: list[Node] = field(default_factory=list)


def lineage(run: Path, seen: frozenset[Path] = frozenset()) -> Node:
    """The tree of a run.

    Raises:
        FileNotFoundError: not a run directory.
        ValueError: a damaged record or summary.
    """
    record = read_record(run)
    if record is None:
        raise FileNotFoundError(f"{run} is not a run directory: it has no artefact.json")
    key = record["key"]
    if not (run / SUMMARY).is_file():
        problem = "; ".join(damage(run)) or None if "files" in record else "not finished"
        return Node(f"{record['what'].removeprefix('a ')} {run.name}", {"key": key_hash(key)[:12]}, problem)
    summary = read_summary(run)
    node = Node(
        f"run {run.name}",
        {
            "key": key_hash(key)[:12],
            "student": f"{summary['student']['name']}, {summary['student']['parameters']:,} parameters",
            "top-1": "-" if summary["test_top1"] is None else f"{summary['test_top1']:.2%}",
            "steps": f"{summary['steps']:,}",
            "precision": str(summary["precision"]),
        },
        "; ".join(damage(run)) or None,
    )
    data = _mapping(key.get("data"))
    node.inputs.append(
        Node(f"data {summary['dataset']}", {"train": str(data.get("train"))[:12], "test": str(data.get("test"))[:12]})
    )
    kept = f"{summary['kept']:,} of {counted(summary['total'], 'sample')}"
    subset = Node(f"subset {kept}", {"hash": str(summary["subset_hash"])[:12]})
    scores = summary.get("inputs", {}).get("scores")
    if isinstance(scores, dict):
        subset.inputs.append(_scores(run, scores, seen | {run.resolve()}))
    node.inputs.append(subset)
    node.inputs += [_teacher(run, teacher, seen | {run.resolve()}) for teacher in summary["teacher"]]
    return node


def _scores(run: Path, scores: dict[str, Any], seen: frozenset[Path]) -> Node:
    """Scores, and the records that they are of where those are still there."""
    origin = _mapping(scores.get("origin"))
    node = Node(
        f"scores {scores.get('scorer')}",
        {"hash": str(scores.get("hash"))[:12], "hard is": str(scores.get("hard")), "of": _observed(origin)},
    )
    hashes = origin.get("observed")
    hashes = hashes if isinstance(hashes, list) else []
    for folder in sorted(path.parent for path in run.parent.glob(f"*/*/{FILE}")):
        record = read_record(folder) if folder.resolve() not in seen else None
        if record is None or digests_hash(record.get("files", {})) not in hashes:
            continue
        if (folder / SUMMARY).is_file():
            node.inputs.append(lineage(folder, seen))
        else:
            node.inputs.append(Node(f"{record['what']} {folder.name}", {}, "; ".join(damage(folder)) or None))
    return node


def _mapping(value: Any) -> dict[str, Any]:
    """What another version may have left out, or have written otherwise."""
    return value if isinstance(value, dict) else {}


def _observed(origin: dict[str, Any]) -> str:
    told = [origin.get("kind"), origin.get("view"), counted(origin["epochs"], "epoch") if "epochs" in origin else None]
    return ", ".join(str(one) for one in told if one) or "nothing"


def _teacher(run: Path, teacher: dict[str, Any], seen: frozenset[Path]) -> Node:
    """A teacher, and the run that it comes from where that is still there."""
    node = Node(
        f"teacher {teacher['name']}",
        {"weights": str(teacher.get("weights_hash"))[:12], "from": str(teacher["source"])},
    )
    found = teacher_run(run, str(teacher["source"]))
    if found is None:
        if teacher.get("training") is not None:
            node.problem = "the run that it comes from is not there"
        return node
    source, when = found
    weights = snapshots(source).get(when) if when else source / WEIGHTS
    if weights is None or not weights.is_file():
        node.problem = "the run that it comes from has lost it"
    elif stored_hash(weights) != teacher.get("weights_hash"):
        node.problem = "its run has other weights now"
    if source.resolve() not in seen:
        node.inputs.append(lineage(source, seen))
    return node


def teacher_run(run: Path, source: str) -> tuple[Path, str] | None:
    """The run directory that a teacher of `run` comes from, and which snapshot of it ("" for the last weights).

    The output may have been moved, or be looked at from another folder: then it is looked for beside the run.
    """
    name, at, when = source.rpartition("@")
    path = Path(name if at else source)
    for folder in (path, run.parent / "teachers" / path.name, run.parent / path.name):
        with contextlib.suppress(OSError, ValueError):  # no path at all, but some name of a model
            if folder.is_dir() and folder.resolve() != run.resolve():
                return folder, when if at else ""
    return None
