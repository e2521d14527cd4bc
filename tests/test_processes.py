"""Two processes against one: the same samples in each global batch, the same losses, one checkpoint.

The students are fully connected networks: BatchNorm would see other local batches.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import command, metrics, only_run, options, plain, start, train

from kdprune.training.observers import Observer

CPU = {"ACCELERATE_USE_CPU": "true"}

WATCH = """
import json, os, sys
from kdprune.cli import parse
from kdprune.pipeline.train import run
from kdprune.training.observers import Observer

class Watch(Observer):
    seen = []

    def batch(self, batch, result):
        self.seen.append([batch.ids.tolist(), batch.views.tolist(), result.loss.item(), result.kd_loss.item()])

run(parse(["train", *sys.argv[2:]])[1].config_object, observers=[Watch()])
with open(os.path.join(sys.argv[1], f"rank{os.environ.get('RANK', 0)}.json"), "w") as file:
    json.dump(Watch.seen, file)
"""


class Watch(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[list[int], list[int], float, float]] = []

    def batch(self, batch, result) -> None:
        self.seen.append((batch.ids.tolist(), batch.views.tolist(), result.loss.item(), result.kd_loss.item()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher() -> tuple[str, ...]:
    """Two processes by torch's own launcher: `accelerate launch --cpu` starts one without an MPI host file."""
    return ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")


@pytest.fixture(scope="module")
def settings(digits_teacher):
    return {
        "student.model": "mlp_64", "teacher.models": str(digits_teacher), "subset.keep_fraction": 0.5,
        "train.steps": 20, "data.augment": "crop(1)+mixup(0.4)", "train.batch_size": 96, "train.precision": "no",
        "train.lr": 0.05,
    }  # fmt: skip


def arguments(settings: dict[str, Any], output: Path, **more: object) -> list[str]:
    return [f"--output={output}", *options(**settings, **more)]


def test_two_processes_do_what_one_does(tmp_path, settings):
    watch = Watch()
    summary, alone = train(tmp_path / "one", settings, watch)
    one = watch.seen
    script = tmp_path / "watch.py"
    script.write_text(WATCH)
    done = command(script, tmp_path, *arguments(settings, tmp_path / "two"), launcher=launcher(), **CPU)
    assert done.returncode == 0, done.stderr
    together = only_run(tmp_path / "two")
    assert json.loads((together / "environment.json").read_text())["processes"] == 2
    two = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 20
    for (ids, views, loss, kd_loss), first, second in zip(one, *two, strict=True):
        assert first[0] + second[0] == ids
        assert first[1] + second[1] == views
        assert (first[2] + second[2]) / 2 == pytest.approx(loss, abs=1e-4)
        assert (first[3] + second[3]) / 2 == pytest.approx(kd_loss, abs=1e-4)
    for row, other in zip(metrics(alone), metrics(together), strict=True):
        for name in ("train_loss", "task_loss", "kd_loss", "test_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-4), name
        for name in ("epoch", "step", "lr", "alpha"):
            assert float(row[name]) == float(other[name])
        # one image or two may lie on the border between two classes
        assert float(row["test_top1"]) == pytest.approx(float(other["test_top1"]), abs=2 / 450)
    assert (alone / "subset.json").read_bytes() == (together / "subset.json").read_bytes()
    assert json.loads((together / "summary.json").read_text())["images_seen"] == summary["images_seen"]


def test_a_batch_that_two_processes_cannot_share_is_refused(tmp_path, settings):
    odd = arguments({**settings, "train.batch_size": 95}, tmp_path)
    done = command("train.py", *odd, launcher=launcher(), **CPU)
    assert done.returncode != 0
    said = plain(done.stderr)
    message = "--train.batch_size: 95 given, but it is the batch of all 2 processes and 1 accumulation steps together"
    assert said.count(message) == 1
    assert "must be a multiple of 2" in said


def test_two_processes_stop_together_with_one_checkpoint(tmp_path, settings):
    """The signal reaches the launcher, as from a cluster; it hands it to both."""
    long = arguments({**settings, "train.steps": 60_000, "train.checkpoint_every": "0.01min"}, tmp_path)
    log = tmp_path / "log"
    process = start(*launcher(), "train.py", *long, log=log, **CPU)
    try:
        wait_for_checkpoint(tmp_path, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        process.kill()
    said = plain(log.read_text())
    assert said.count("SIGTERM: stopped at step") == 1
    assert "The same command goes on from there" in said
    stopped_at = int(said.split("SIGTERM: stopped at step ")[1].split()[0])
    newest = max(only_run(tmp_path).glob("checkpoints/step_*.pth"))
    assert newest.name == f"step_{stopped_at:09d}.pth"
    assert torch.load(newest, weights_only=True)["processes"] == 2
    assert not list(only_run(tmp_path).glob("checkpoints/.*"))


def test_the_documented_launcher_does_not_start_one_process_in_silence(tmp_path, settings):
    """Accelerate 1.15 runs one process for `--cpu --num_processes 2` unless it is given an MPI host file."""
    words = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", f"--main_process_port={free_port()}")
    done = command("train.py", *arguments({**settings, "train.steps": 2}, tmp_path), launcher=words)
    if done.returncode == 0:
        assert json.loads((only_run(tmp_path) / "environment.json").read_text())["processes"] == 2
    else:
        assert "torchrun" in done.stderr


def wait_for_checkpoint(output: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while not list(output.glob("*/checkpoints/step_*.pth")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
