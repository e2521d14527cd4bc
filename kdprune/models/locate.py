"""A teacher that an earlier run has trained: `RUN` or `RUN@EPOCH`."""

from __future__ import annotations

from pathlib import Path

import timm

from kdprune.models.names import is_remote

FINAL = "student.safetensors"
CHECKPOINTS = "checkpoints"


def resolve_teacher(name: str) -> Path | None:
    """The weights file that `name` stands for; None where it is the name of a model.

    `RUN` is a run directory (its final student), `RUN@5` the student there after epoch 5 (young teachers can suit
    small subsets better), `FILE.safetensors` a file that `save_model` wrote.

    Raises:
        ValueError: a path with nothing there, or a run without that file; the message lists the epochs that exist.
    """
    path = Path(name)
    if is_remote(name) or (timm.is_model(name.partition(".")[0]) and not _is_run(path)):
        return None
    if path.suffix == ".safetensors":
        return _existing_file(path)
    if path.is_dir():
        return _final(path)
    run, at, epoch = name.rpartition("@")
    if at and Path(run).is_dir():
        return _at_epoch(Path(run), epoch)
    if at or "/" in name or "\\" in name:
        raise ValueError(f"no such run directory: {run or name}")
    return None


def run_of(weights: Path) -> Path | None:
    """The run directory that a weights file lies in, so that it says what it was trained on; None if in none."""
    above = weights.parents[:2]  # RUN/student.safetensors, RUN/checkpoints/epoch_0001.safetensors
    return next((folder for folder in above if (folder / "subset.json").is_file()), None)


def epochs_kept(run: Path) -> list[int]:
    """Epochs whose student is in the run's checkpoints, ascending."""
    stems = (file.stem.removeprefix("epoch_") for file in (run / CHECKPOINTS).glob("epoch_*.safetensors"))
    return sorted(int(stem) for stem in stems if stem.isdigit())


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


def _at_epoch(run: Path, epoch: str) -> Path:
    file = run / CHECKPOINTS / (f"epoch_{int(epoch):04d}.safetensors" if epoch.isdecimal() else epoch)
    if not epoch.isdecimal() or not file.is_file():
        raise ValueError(f"{run} has no student of epoch {epoch!r} ({_listed(run)})")
    return file


def _listed(run: Path) -> str:
    epochs = epochs_kept(run)
    return f"epochs kept: {', '.join(map(str, epochs))}" if epochs else "no epoch was kept; see the run's checkpoints"
