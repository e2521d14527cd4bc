"""Settings, results and surroundings of each run, for the page: what all runs share is said once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdprune.config import Config, dotted, to_dict
from kdprune.outside import read_json
from kdprune.report.entries import Entry
from kdprune.report.sections import Section

_NAMES = list(dotted(to_dict(Config())))
_UNSAID = ("name", "output", "remake", "log_with")
_RESULTS = (
    "state", "epoch", "test_top1", "test_loss", "val_top1", "kept", "total", "alpha", "teacher.name",
    "teacher.parameters", "teacher.test_top1", "student.parameters", "epochs", "steps", "images_seen", "train_seconds",
    "images_per_second", "device", "precision", "path",
)  # fmt: skip


def details_of(sections: Sequence[Section]) -> dict[str, Any]:
    """`runs` in the order of the entries that have a directory, settings in `common`, different `environments`."""
    runs: list[dict[str, Any]] = []
    common: list[dict[str, Any]] = []
    environments: list[Any] = []
    places: dict[str, int] = {}
    for index, section in enumerate(sections):
        entries = [entry for entry in section.entries if entry.run is not None]
        shared = _shared(entries)
        common.append({name: value for name, value in shared.items() if value not in (None, [], "")})
        for entry in entries:
            runs.append({**_run(entry, shared), "section": index})
            environment = _environment(entry)
            place = places.setdefault(repr(environment), len(environments))
            if place == len(environments):
                environments.append(environment)
            runs[-1]["environment"] = place
    return {"runs": runs, "common": common, "environments": environments}


def _run(entry: Entry, shared: dict[str, Any]) -> dict[str, Any]:
    assert entry.run is not None
    values = entry.values
    settings = {n: values.get(n) for n in _NAMES if n not in shared and n not in _UNSAID}
    results = {name: _rounded(values[name]) for name in _RESULTS if values.get(name) is not None}
    energy = entry.summary.get("energy")
    results |= dotted({"energy": energy}) if isinstance(energy, dict) else {}
    command = f"kdprune train --config {entry.run.path / 'config.yaml'}"
    return {"name": entry.run.path.name, "settings": settings, "results": results, "command": command}


def _shared(entries: Sequence[Entry]) -> dict[str, Any]:
    """Settings that all runs have in common."""
    if not entries:
        return {}
    first = entries[0].values
    same = [n for n in _NAMES if n not in _UNSAID and all(e.values.get(n) == first.get(n) for e in entries)]
    return {name: first.get(name) for name in same}


def _environment(entry: Entry) -> dict[str, Any]:
    assert entry.run is not None
    try:
        content = read_json(entry.run.path / "environment.json")
    except (ValueError, OSError):
        return {}
    return dotted(content) if isinstance(content, dict) else {}


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
