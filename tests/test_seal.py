"""Finished runs are taken as they are while nothing has changed, and only then."""

from __future__ import annotations

import os
import shutil
import time
from copy import deepcopy
from pathlib import Path

import pytest
from helpers import config_of, train

from kdprune.artefact import FILE
from kdprune.sweep.conduct import Sweep
from kdprune.sweep.plan import make_plan
from kdprune.sweep.seal import Fingerprints, prints_of, seal_of
from kdprune.sweep.sections import read_study
from kdprune.sweep.task import Event, Task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    summary, run = train(folder)
    return config_of(folder), run, prints_of(summary)


def test_the_data_that_is_opened_is_that_of_the_run(finished):
    config, run, prints = finished
    prints_now = Fingerprints()
    assert prints_now.of(config) == prints
    assert prints_now.of(config_of(Path(), {"data.dataset": "/nonexistent"})) is None
    assert seal_of(config, run, prints) == seal_of(deepcopy(config), run, prints) != None  # noqa: E711


CHANGES = {
    "a file's time": lambda run: os.utime(run / "student.safetensors", (1, 1)),
    "a file's length": lambda run: (run / "metrics.csv").write_text("x"),
    "a file that is gone": lambda run: (run / "summary.json").unlink(),
    "a file in its place": lambda run: (run / "config.yaml").rename(run / "x") or (run / "config.yaml").write_text("x"),
    "no longer finished": lambda run: (run / FILE).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_with_its_files_breaks_the_seal(finished, tmp_path, change):
    _, original, prints = finished
    run = tmp_path / "run"
    run.mkdir()
    for file in original.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    config = config_of(tmp_path)
    seal = seal_of(config, run, prints)
    assert seal is not None
    CHANGES[change](run)
    assert seal_of(config, run, prints) != seal


def test_settings_data_and_files_that_are_named_are_part_of_it(finished, tmp_path):
    _, run, prints = finished
    seals = {seal_of(config_of(tmp_path), run, prints)}
    seals.add(seal_of(config_of(tmp_path, {"train.save_epochs": [1]}), run, prints))
    seals.add(seal_of(config_of(tmp_path), run, ("other", prints[1])))
    named = config_of(tmp_path, {"subset.file": str(tmp_path / "subset.json"), "teacher.models": str(run)})
    seals.add(seal_of(named, run, prints))
    (tmp_path / "subset.json").write_text("{}")
    seals.add(seal_of(named, run, prints))
    os.utime(run / FILE, (5, 5))
    seals.add(seal_of(named, run, prints))
    assert len(seals) == 6


class Nobody:
    """A launcher that remembers what it is asked to start, and fails it."""

    at_once = threads = 1
    remembered = frozenset[str]()

    def __init__(self) -> None:
        self.started: list[Task] = []

    @property
    def free(self) -> int:
        return 1

    def start(self, task: Task) -> None:
        self.started.append(task)

    def events(self, timeout: float) -> list[Event]:
        return [Event(self.started[-1].id, "failed", {"error": "nobody does it"})]

    def stop(self) -> None:
        """Nothing is under way."""


def test_a_sweep_takes_many_finished_runs_as_they_are_and_does_those_that_have_changed(finished, tmp_path):
    _, original, prints = finished
    base = config_of(tmp_path)
    plan = make_plan(read_study("x", base, {"grid": {"seed": list(range(60))}}), 0.1, 1)
    sweep = Sweep(plan, tmp_path / "sweeps/x")
    sweep.journal.folder.mkdir(parents=True)
    for id, run in plan.finals:
        shutil.copytree(original, tmp_path / id)
        seal = seal_of(run.config, tmp_path / id, prints)
        sweep.journal.write({"id": id, "state": "finished", "path": str(tmp_path / id), "seal": seal})
    begun = time.process_time()
    sweep, launcher = Sweep(plan, tmp_path / "sweeps/x"), Nobody()
    sweep.conduct(launcher)
    assert not launcher.started
    assert sweep.complete
    assert time.process_time() - begun < 60 * 0.1, "a thousand of them are far from minutes"
    changed = plan.finals[7][0]
    os.utime(tmp_path / changed / "student.safetensors", (1, 1))
    sweep, launcher = Sweep(plan, tmp_path / "sweeps/x"), Nobody()
    sweep.conduct(launcher)
    assert [task.id for task in launcher.started] == [changed]
    assert [status.node.id for status in sweep.failed] == [changed]
