"""What a run was made of: its inputs, and theirs, as far as they are there to say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdprune.artefact import damage, key_hash, read_record
from kdprune.files import read_json
from kdprune.models.locate import snapshots
from kdprune.models.saved import stored_hash
from kdprune.runs.run_dir import SUMMARY, WEIGHTS


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
        return Node(f"run {run.name}", {"key": key_hash(key)[:12]}, "not finished")
    summary = read_json(run / SUMMARY)
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
    data = key.get("data", {})
    node.inputs.append(
        Node(f"data {summary['dataset']}", {"train": str(data.get("train"))[:12], "test": str(data.get("test"))[:12]})
    )
    kept = f"{summary['kept']:,} of {summary['total']:,} samples"
    node.inputs.append(Node(f"subset {kept}", {"hash": str(summary["subset_hash"])[:12]}))
    node.inputs += [_teacher(teacher, seen | {run.resolve()}) for teacher in summary["teacher"]]
    return node


def _teacher(teacher: dict[str, Any], seen: frozenset[Path]) -> Node:
    """A teacher, and the run that it comes from where that is still there."""
    node = Node(
        f"teacher {teacher['name']}",
        {"weights": str(teacher.get("weights_hash"))[:12], "from": str(teacher["source"])},
    )
    name, at, when = teacher["source"].rpartition("@")
    run = Path(name if at else teacher["source"])
    weights = snapshots(run).get(when) if at else run / WEIGHTS
    if weights is None or not weights.is_file():
        return node
    if stored_hash(weights) != teacher.get("weights_hash"):
        node.problem = "its run has other weights now"
    if run.resolve() not in seen:
        node.inputs.append(lineage(run, seen))
    return node
