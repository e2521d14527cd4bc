"""plan.json: what was predicted before the run, and what the run then came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdprune.files import write_json
from kdprune.outside import (
    FINITE,
    MAPPING,
    TEXT,
    Kind,
    check_fields,
    check_format,
    having,
    is_number,
    list_of,
    mapping_of,
    optional,
    read_json,
    whole,
)
from kdprune.planning.pilots import finished, run_of

FOLDER, FILE, FORMAT = "plans", "plan.json", "kdprune plan 1"

Document = dict[str, Any]
Runs = Sequence[tuple[Path, dict[str, Any]]]

_SHARE = Kind("a number in [0, 1]", lambda value: is_number(value) and 0 <= value <= 1)
_PREDICTED = having({"median": _SHARE, "low": _SHARE, "high": _SHARE})
_RESULT = having({"run": TEXT, "reached": mapping_of(_SHARE), "held": MAPPING, "error": mapping_of(FINITE)})
_ARM = {
    "name": TEXT, "steps": whole(1), "config_hash": TEXT, "command": TEXT, "chance": _SHARE,
    "predicted": mapping_of(_PREDICTED), "result": optional(_RESULT),
}  # fmt: skip
_DESIGN = {"lengths": mapping_of(list_of(whole(1))), "dropped": mapping_of(TEXT), "pilots": FINITE, "parts": FINITE}
_PLAN = {"state": TEXT, "budget": MAPPING, "level": _SHARE, "output": TEXT, "design": having(_DESIGN)}


def save(folder: Path, content: Document) -> Path:
    write_json(folder / FILE, {"format": FORMAT, **content})
    return folder / FILE


def load(path: Path) -> Document:
    """Read a plan.

    Args:
        path: the file, or the folder that it is in.

    Raises:
        FileNotFoundError, ValueError: no such file; no plan, or a damaged one.
    """
    file = path / FILE if path.is_dir() else path
    content = read_json(file)
    check_format(content, FORMAT, str(file), "a plan")
    check_fields(content, _PLAN, str(file))
    if content["state"] == "planned":
        check_fields(content, {"arms": list_of(MAPPING), "recommended": TEXT}, str(file))
        for arm in content["arms"]:
            check_fields(arm, _ARM, f"{file}, 'arms',")
    return content


def compared(content: Document) -> Document:
    """The plan with what its runs on its data came to, of all arms trained as it says; earlier results stay."""
    data = content.get("data")  # which an early version did not write
    every = finished(Path(content["output"]))
    runs = [(path, summary) for path, summary in every if data in (None, summary.get("dataset_fingerprint"))]
    return {**content, "arms": [{**arm, "result": arm["result"] or _result(arm, runs)} for arm in content["arms"]]}


def _result(arm: Document, runs: Runs) -> Document | None:
    found = run_of(runs, arm["config_hash"], arm["steps"])
    if found is None:
        return None
    path, summary = found
    reached = {name: summary[name] for name in arm["predicted"] if summary.get(name) is not None}
    return {
        "run": str(path),
        "reached": reached,
        "error": {name: top1 - arm["predicted"][name]["median"] for name, top1 in reached.items()},
        "held": {
            name: arm["predicted"][name]["low"] <= top1 <= arm["predicted"][name]["high"]
            for name, top1 in reached.items()
        },
    }


def tally(plans: Iterable[Document]) -> dict[str, dict[str, int]]:
    """How often intervals held, by what was predicted: runs, and of them those within; of recommended arms, too."""
    counts: dict[str, dict[str, int]] = {}
    for content in plans:
        for arm in content["arms"] if content["state"] == "planned" else ():
            for name, held in (arm["result"] or {"held": {}})["held"].items():
                of_name = counts.setdefault(name, {"runs": 0, "held": 0, "recommended": 0, "recommended_held": 0})
                of_name["runs"] += 1
                of_name["held"] += bool(held)
                if arm["name"] == content["recommended"]:
                    of_name["recommended"] += 1
                    of_name["recommended_held"] += bool(held)
    return counts
