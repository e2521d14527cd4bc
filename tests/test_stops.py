"""Signals and kills: nothing goes on that was asked to stop, and what was lost is counted."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import REPO, StopIn, start, train

from kdprune.pipeline import student
from kdprune.training import progress
from kdprune.training.interrupt import Interrupted, StopRequest
from kdprune.training.observers import Observer

FEW = {"train.steps": 4}
KD = {**FEW, "teacher.models": "mlp_64", "teacher.train.steps": 3}


def weights(run: Path) -> bytes:
    return (run / "student.safetensors").read_bytes()


def stopping_in(step: int, undisturbed: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Have all trainings but the first ones get a signal in a step; the names of those that are begun."""
    begun: list[str] = []
    make = student.Task

    def task(**parts: Any) -> Any:
        begun.append(parts["label"])
        stop = [StopIn(step)] if len(begun) > undisturbed else []
        return make(**{**parts, "observers": [*parts["observers"], *stop]})

    patch.setattr(student, "Task", task)
    return begun


def test_a_signal_in_the_last_step_of_a_teacher_stops_the_command(tmp_path):
    _, whole = train(tmp_path / "whole", KD)
    with pytest.MonkeyPatch.context() as patch:
        begun = stopping_in(3, 0, patch)
        with pytest.raises(Interrupted, match="stopped at step 3 of 3"):
            train(tmp_path / "a", KD)
        assert len(begun) == 1
    _, broken = train(tmp_path / "a", KD)
    assert weights(broken) == weights(whole)


def test_a_signal_in_the_last_step_of_a_candidate_stops_the_search(tmp_path, digits_teacher):
    settings = {"train.steps": 6, "teacher.models": str(digits_teacher), "distill.alpha": "search([0.5, 1.0])"}
    with pytest.MonkeyPatch.context() as patch:
        begun = stopping_in(2, 1, patch)
        with pytest.raises(Interrupted, match="stopped at step 2 of 2"):
            train(tmp_path / "a", settings)
        assert begun == ["search α 0.5", "search α 1"]
    _, broken = train(tmp_path / "a", settings)
    _, whole = train(tmp_path / "whole", settings)
    assert weights(broken) == weights(whole)


@pytest.mark.parametrize(
    "more",
    [{"train.record": "plain"}, {"train.record": "training"}, {"train.ema": 0.9}, {"subset.dynamic": "infobatch"}],
)
def test_a_run_that_was_stopped_in_its_last_step_ends_as_if_it_had_not_been(tmp_path, more):
    settings = {"train.steps": None, "train.epochs": 2, "train.batch_size": 200, **more}
    summary, whole = train(tmp_path / "whole", settings)
    with pytest.raises(Interrupted, match=f"step {summary['steps']} of {summary['steps']}"):
        train(tmp_path / "a", settings, StopIn(summary["steps"]))
    again, broken = train(tmp_path / "a", settings)
    assert weights(broken) == weights(whole)
    assert again["test_loss"] == summary["test_loss"]
    for path in whole.glob("dynamics/*.f16"):
        assert path.read_bytes() == (broken / "dynamics" / path.name).read_bytes()


def test_a_signal_that_nobody_looks_for_any_more_is_not_lost():
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
        with contextlib.suppress(Interrupted), StopRequest() as stop:
            for _ in range(3):  # a launcher and its batch system both send it
                os.kill(os.getpid(), signal.SIGTERM)
            raise Interrupted
        assert stop.signal == "SIGTERM"
        assert len(came) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


class Dies(Observer):
    def __init__(self, step: int) -> None:
        self.when = step

    def step(self, step: int) -> None:
        if step == self.when:
            raise SystemExit  # which nobody rescues, like a kill


def test_what_was_lost_to_a_kill_is_counted(tmp_path, digits_teacher, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    settings = {
        "train.steps": 40, "train.batch_size": 32, "teacher.models": str(digits_teacher),
        "train.checkpoint_every": "0.237",  # at 10, 20, 30
    }  # fmt: skip
    whole, _ = train(tmp_path / "whole", settings)
    for step in (5, 18, 18, 39):
        with pytest.raises(SystemExit):
            train(tmp_path / "a", settings, Dies(step))
    broken, run = train(tmp_path / "a", settings)
    lost = 4 + 7 + 7 + 8  # the step in which it dies is not noted any more
    spent, cost = whole["cost"]["student_training"], broken["cost"]["student_training"]
    assert spent["lost"] == {"seconds": 0.0, "samples": 0}
    assert cost["lost"]["samples"] == 32 * lost
    for name in ("forward_samples", "backward_samples", "teacher_forward_samples"):
        assert cost[name] == spent[name] + 32 * lost
    assert cost["seconds"] == broken["train_seconds"] + cost["lost"]["seconds"]
    assert cost["lost"]["seconds"] > 0
    assert not (run / "checkpoints" / progress.FILE).exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"steps": 1}', '{"steps": "a", "seconds": 1, "teacher_forward_samples": 1}']
)
def test_a_damaged_note_of_progress_is_passed_over(tmp_path, content):
    (tmp_path / progress.FILE).write_text(content)
    assert progress.Progress(tmp_path).read() == {}
    (tmp_path / progress.FILE).unlink()
    (tmp_path / progress.FILE).mkdir()
    assert progress.Progress(tmp_path).read() == {}


# --- launchers --------------------------------------------------------------------------------------------------------

LONG = [
    "--student.model=mlp_64", "--train.steps=500000", "--train.batch_size=64", "--train.eval_every=100000",
    "--train.checkpoint_every=100000", "--data.augment=none", "--train.lr=0.01",
]  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGKILL), (2, signal.SIGTERM)])
def test_what_a_launcher_started_stops_with_it(tmp_path, processes, number):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", processes, REPO / "train.py"]
    launcher = start(*launch, *LONG, f"--output={tmp_path}", log=tmp_path / "log")
    started: list[psutil.Process] = []
    try:
        # Written by a training that goes on: before it, a signal ends the process without a word.
        until(lambda: list(tmp_path.glob(f"*/checkpoints/{progress.FILE}")) or launcher.poll() is not None, 180)
        assert launcher.poll() is None, (tmp_path / "log").read_text()
        started = psutil.Process(launcher.pid).children(recursive=True)
        assert len(started) >= processes
        launcher.send_signal(number)
        launcher.wait(60)
        _, left = psutil.wait_procs(started, 60)
        said = (tmp_path / "log").read_text()
        assert not left, said
        assert "SIGTERM: stopped at step" in said
        assert len(list(tmp_path.glob("*/checkpoints/step_*.pth"))) == 1
    finally:
        for process in started:
            if process.is_running():
                process.kill()
        launcher.kill()
