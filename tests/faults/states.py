"""What the faults happen to: commands on the digits that take a second, and all that they leave on the disk."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import StopIn, said_by, timeless

from kdprune.pipeline import student

TINY = {
    "data.dataset": "digits", "student.model": "mlp_64", "data.augment": "crop(1)", "train.batch_size": 64,
    "train.steps": 42, "train.lr": 0.05,
    "train.precision": "no", "train.checkpoint_every": "0.5", "subset.keep_fraction": 0.5,
}  # fmt: skip
TEACHER = {"teacher.models": "mlp_64", "teacher.train.steps": 12}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"train.ema": 0.9, "train.save_steps": "[15]"},
    "distilled": {**TEACHER, "teacher.targets": "cached", "teacher.views": 2, "train.record": "plain"},
    "selected": {"subset.scorer": "el2n(epoch=1)", "subset.selector": "hardest", "record.view": "training"},
    "searched": {**TEACHER, "distill.alpha": "search([0.5,1.0])"},
}


@dataclass(frozen=True)
class Command:
    """`kdprune train` with some of the settings, in a folder that holds everything that it writes."""

    name: str
    folder: Path
    seed: int = 0

    @property
    def words(self) -> list[str]:
        given = {**TINY, **SETTINGS[self.name], "seed": self.seed, "name": "mine"}
        given |= {"output": self.output, "data.root": self.folder / "data"}
        return ["train", *(f"--{name}={value}" for name, value in given.items())]

    @property
    def output(self) -> Path:
        return self.folder / "runs"

    @property
    def run(self) -> Path:
        return self.output / "mine"

    def result(self) -> dict[str, Any]:
        """All of a finished run that is the same whenever it is trained, but for what a search is done with."""
        summary = json.loads((self.run / "summary.json").read_text())
        names = [path for path in self.run.rglob("*") if path.suffix in (".safetensors", ".f16", ".npy")]
        names = [path for path in names if "search" not in path.parts]
        names.append(self.run / "subset.json")
        files = {str(path.relative_to(self.run)): path.read_bytes() for path in names}
        return {**files, "metrics.csv": timeless(self.run), "test_loss": summary["test_loss"], "key": summary["key"]}


@contextlib.contextmanager
def stopping(step: int, training: int) -> Iterator[None]:
    """A SIGTERM in a step of the n-th training of a command."""
    begun = [0]
    make = student.Task

    def task(**parts: Any) -> Any:
        begun[0] += 1
        stop = [StopIn(step)] if begun[0] == training else []
        return make(**{**parts, "observers": [*parts["observers"], *stop]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "Task", task)
        yield


class Scene:
    """A command with what it leaves when it is finished, or was stopped, to be damaged any number of times.

    Args:
        folder: of everything here.
        name: of the settings.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.command = Command(name, folder / "work")
        self.log = folder / "log"  # of processes
        self.seconds = 0.0  # that the command takes in a process of its own
        self.of_two: dict[str, Any] = {}  # what comes out of two processes that share it
        self.kept: dict[str, Path] = {}
        self._make("other", Command(name, folder / "work", seed=1))
        self._make("finished", self.command)
        self.expected = self.command.result()
        self.bytes = sum(path.stat().st_size for path in self.command.folder.rglob("*") if path.is_file())
        for training, step in ((1, 11), (2, 7), (2, 29)):
            with stopping(step, training):
                self._make(f"stopped in step {step} of training {training}", self.command)

    def _make(self, state: str, command: Command) -> None:
        self.clear()
        status, _, said = said_by(command.words)
        if status == 130 or (status == 0 and not state.startswith("stopped")):
            self.kept[state] = self.folder / state.replace(" ", "_")
            shutil.copytree(command.folder, self.kept[state])
        else:
            assert status == 0, said  # there is no second training

    def clear(self) -> None:
        shutil.rmtree(self.command.folder, ignore_errors=True)
        self.command.folder.mkdir(parents=True)

    def put(self, state: str) -> None:
        """Lay out a state that was kept."""
        self.clear()
        shutil.copytree(self.kept[state], self.command.folder, dirs_exist_ok=True)
