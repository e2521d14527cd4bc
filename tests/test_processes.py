"""Two processes against one: the same samples in each global batch, the same losses, one checkpoint.

The students are fully connected networks: BatchNorm would see other local batches.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import REPO, command, metrics, only_run, options, plain

WATCH = """
import json, os, sys
from kdprune.cli import main
from kdprune.engine.step import DistillStep

seen, original = [], DistillStep.__call__

def watched(self, batch, alpha):
    result = original(self, batch, alpha)
    seen.append([batch.ids.tolist(), batch.views.tolist(), result["loss"].item(), result["kd_loss"].item()])
    return result

DistillStep.__call__ = watched
status = main(["train", *sys.argv[2:]])
with open(os.path.join(sys.argv[1], f"rank{os.environ.get('RANK', 0)}.json"), "w") as file:
    json.dump(seen, file)
sys.exit(status)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launcher(*words: object) -> tuple[str, ...]:
    port = f"--main_process_port={free_port()}"
    return ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", port, *map(str, words))


@pytest.fixture(scope="module")
def arguments(digits_teacher):
    return options(
        student__model="mlp_64", teacher__models=digits_teacher, subset__keep_fraction=0.5, train__steps=20,
        data__augment="crop(1)+mixup(0.4)", train__batch_size=96, train__precision="no", train__lr=0.05,
    )  # fmt: skip


def test_two_processes_do_what_one_does(tmp_path, arguments):
    script = tmp_path / "watch.py"
    script.write_text(WATCH)
    outputs = {}
    for world, words in ((1, ()), (2, launcher())):
        output = tmp_path / str(world)
        output.mkdir()
        done = command(script, output, f"--output={output}", *arguments, launcher=words)
        assert done.returncode == 0, done.stderr
        outputs[world] = output
    (one,) = (json.loads((outputs[1] / "rank0.json").read_text()),)
    two = [json.loads((outputs[2] / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 20
    for (ids, views, loss, kd_loss), first, second in zip(one, *two, strict=True):
        assert first[0] + second[0] == ids
        assert first[1] + second[1] == views
        assert (first[2] + second[2]) / 2 == pytest.approx(loss, abs=1e-4)
        assert (first[3] + second[3]) / 2 == pytest.approx(kd_loss, abs=1e-4)
    a, b = (metrics(only_run(outputs[world])) for world in (1, 2))
    assert len(a) == len(b) == 3
    for row, other in zip(a, b, strict=True):
        for name in ("train_loss", "task_loss", "kd_loss", "test_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-4), name
        for name in ("epoch", "step", "lr", "alpha"):
            assert float(row[name]) == float(other[name])
        # one image more or less may lie on the border between two classes
        assert float(row["test_top1"]) == pytest.approx(float(other["test_top1"]), abs=2 / 450)
    subsets = [(only_run(outputs[world]) / "subset.json").read_bytes() for world in (1, 2)]
    assert subsets[0] == subsets[1]


def test_a_batch_that_two_processes_cannot_share_is_refused(tmp_path, arguments):
    done = command(
        "train.py", f"--output={tmp_path}", *arguments, "--train.batch_size=95", launcher=launcher()
    )  # fmt: skip
    assert done.returncode != 0
    said = plain(done.stderr)
    assert "--train.batch_size: 95 given, but it is the batch of all 2 processes" in said
    assert "must be a multiple of 2" in said
    assert said.count("--train.batch_size: 95 given") == 1


def test_two_processes_stop_together_with_one_checkpoint_and_go_on(tmp_path, arguments):
    """The signal reaches the launcher, as from a cluster; it hands it to both."""
    words = [*arguments, "--train.steps=60000", f"--output={tmp_path}", "--train.checkpoint_every=0.01min"]
    log = tmp_path / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen([sys.executable, *launcher(), "train.py", *words], cwd=REPO, stdout=file, stderr=file)
    try:
        checkpoint_of(tmp_path, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        if process.poll() is None:
            process.kill()
    said = plain(log.read_text())
    assert said.count("SIGTERM: stopped at step") == 1
    assert "The same command goes on from there" in said
    stopped_at = int(said.split("SIGTERM: stopped at step ")[1].split()[0])
    newest = max(only_run(tmp_path).glob("checkpoints/step_*.pth"))
    assert newest.name == f"step_{stopped_at:09d}.pth"
    assert not list(only_run(tmp_path).glob("checkpoints/.*"))


def checkpoint_of(output: Path, process: subprocess.Popen[bytes], log: Path) -> Path:
    """The first checkpoint, waited for."""
    end = time.monotonic() + 120
    while not (found := list(output.glob("*/checkpoints/step_*.pth"))):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    return found[0]
