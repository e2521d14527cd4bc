"""A run that is killed again and again ends with the bits of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from helpers import FRESH, kdprune, metrics, only_run, options, said_by, timeless

WAIT = 120  # seconds for a process to come as far as a checkpoint


@pytest.fixture(scope="module")
def arguments(digits_teacher):
    """About three seconds of training, a checkpoint every third of a second."""
    return [
        "train",
        *options(
            data__dataset="digits", student__model="cifar_resnet8", student__drop_rate=0.2,
            teacher__models=digits_teacher,
            subset__keep_fraction=0.7, data__augment="crop(1)+cutmix", train__epochs=16, train__batch_size=32,
            train__ema=0.95, train__checkpoint_every="0.005min", train__eval_every=4, train__lr=0.05,
        ),
    ]  # fmt: skip


def step_reached(output: Path) -> int:
    """The step of the newest checkpoint; -1 if there is none."""
    names = [path.stem for path in output.glob("*/checkpoints/step_*.pth")]
    return max((int(name.removeprefix("step_")) for name in names), default=-1)


def stop_after_next_checkpoint(process, output: Path, number: signal.Signals, delay: float) -> int:
    """Wait until a new checkpoint lies there and a moment more, send a signal; the exit status."""
    before, end = step_reached(output), time.monotonic() + WAIT
    while step_reached(output) <= before:
        assert process.exitcode is None, f"it ended with {process.exitcode} before a new checkpoint"
        assert time.monotonic() < end, "no new checkpoint"
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(process.pid, number)
    process.join(WAIT)
    return process.exitcode


def begun(arguments: list[object], output: Path, log: Path):
    process = FRESH.Process(target=kdprune, args=([*arguments, f"--output={output}"], log), daemon=True)
    process.start()
    return process


@pytest.mark.slow
def test_killed_and_stopped_runs_end_with_the_bits_of_one_left_alone(arguments, tmp_path):
    random.seed(0)
    whole, broken, log, steps = tmp_path / "whole", tmp_path / "broken", tmp_path / "log", []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        log.unlink(missing_ok=True)
        process = begun(arguments, broken, log)
        status = stop_after_next_checkpoint(process, broken, number, random.uniform(0, 0.2))
        said = log.read_text()
        assert "Traceback" not in said
        if number == signal.SIGKILL:
            assert status == -signal.SIGKILL
        else:
            assert status == 130
            assert f"{number.name}: stopped at step {step_reached(broken)} of" in said
        if steps:
            assert f"goes on at step {steps[-1]} of" in said
        steps.append(step_reached(broken))
        assert len(list(broken.glob("*/checkpoints/step_*.pth"))) <= 2
    assert steps == sorted(set(steps))
    last = begun(arguments, broken, log)
    last.join(WAIT)
    assert last.exitcode == 0, log.read_text()
    assert said_by([*arguments, f"--output={whole}"])[0] == 0
    a, b = only_run(whole), only_run(broken)
    ends = {int(row["step"]) for row in metrics(a)}
    assert any(step not in ends for step in steps), "no stop was inside an epoch"
    assert timeless(a) == timeless(b)
    assert (a / "student.safetensors").read_bytes() == (b / "student.safetensors").read_bytes()
    assert (a / "subset.json").read_bytes() == (b / "subset.json").read_bytes()
    assert not list(b.rglob("*.pth"))
