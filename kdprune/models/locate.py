"""A teacher that an earlier run has trained: `RUN`, `RUN@EPOCH` or `RUN@stepSTEP`."""

from __future__ import annotations

import os
from pathlib import Path

import timm

from kdprune.messages import shown
from kdprune.models.names import is_remote

FINAL = "student.safetensors"
CHECKPOINTS = "checkpoints"
LONGEST = 255  # bytes of a file's name, on the usual file systems


def resolve_teacher(name: str) -> Path | None:
    """The weights file that `name` stands for; None where it is the name of a model.

    `RUN` is a run directory (its final student), `RUN@5` the student there after epoch 5 (young teachers can suit
    small subsets better), `RUN@step300` the one after step 300, `FILE.safetensors` a file that `save_model` wrote.

    Raises:
        ValueError: a path with nothing there, or a run without that file; the message lists the snapshots that exist.
    """
    if any(len(os.fsencode(part)) > LONGEST for part in name.split("/")):
        raise ValueError(f"no model, run or file has so long a name: {shown(name)}")
    path = Path(name)
    if is_remote(name) or (timm.is_model(name.partition(".")[0]) and not _is_run(path)):
        return None
    if path.suffix == ".safetensors":
        return _existing_file(path)
    if path.is_dir():
        return _final(path)
    run, at, when = name.rpartition("@")
    if at and Path(run).is_dir():
        return _snapshot(Path(run), when)
    if at or "/" in name or "\\" in name:
        raise ValueError(f"no such run directory: {run or name}")
    return None


def run_of(weights: Path) -> Path | None:
    """The run directory that a weights file lies in, so that it says what it was trained on; None if in none."""
    above = weights.parents[:2]  # RUN/student.safetensors, RUN/checkpoints/epoch_0001.safetensors
    return next((folder for folder in above if (folder / "subset.json").is_file()), None)


def snapshots(run: Path) -> dict[str, Path]:
    """The snapshots that a run kept, as they stand behind `RUN@`: "5" after epoch 5, "step300" after step 300."""
    found = {}
    for kind, prefix in (("epoch_", ""), ("step_", "step")):
        for file in sorted((run / CHECKPOINTS).glob(f"{kind}*.safetensors")):
            number = file.stem.removeprefix(kind)
            if number.isdecimal():
                found[f"{prefix}{int(number)}"] = file
    return found


def _is_run(path: Path) -> bool:
    return (path / FINAL).is_file() or (path / CHECKPOINTS).is_dir()


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"no such checkpoint file: {path}")
    return path


def _final(run: Path) -> Path:
    if not (run / FINAL).is_file():
        raise ValueError(f"{run} has no {FINAL}: not a finished run ({_listed(run)})")
    return run / FINAL


def _snapshot(run: Path, when: str) -> Path:
    kept = snapshots(run)
    name = str(int(when)) if when.isdecimal() else when
    if name not in kept:
        raise ValueError(f"{run} has no student of {when!r} ({_listed(run)})")
    return kept[name]


def _listed(run: Path) -> str:
    kept = snapshots(run)
    return f"kept: {', '.join(kept)}" if kept else "no snapshot was kept; see --train.save_epochs"
