"""Runs for the tests: in this process, or as users start them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch._subclasses.fake_tensor import FakeTensorMode

from kdprune import registry
from kdprune.cli import main
from kdprune.config import Config, from_dict, to_dict
from kdprune.training.observers import Observer

REPO = Path(__file__).parents[1]
# Processes that begin with everything imported and nothing computed. A fork of the one that runs the tests would not
# do: autograd refuses to go on in the child of a process that has used it.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["kdprune.cli", "kdprune.pipeline.cache", "kdprune.pipeline.train"])
CLOCK = ("seconds", "images_per_second")  # columns of metrics.csv that differ between two equal runs


def config_of(output: Path, options: dict[str, Any] | None = None) -> Config:
    """A few steps of a tiny network on the digits, and whatever `options` say by dotted names."""
    tiny = {
        "output": str(output), "data.augment": "crop(1)", "student.model": "mlp_64", "train.steps": 22,
        "train.batch_size": 64, "train.lr": 0.05, "train.precision": "no",
    }  # fmt: skip
    content = to_dict(Config())
    for name, value in {**tiny, **(options or {})}.items():
        *groups, key = name.split(".")
        place = content
        for group in groups:
            place = place[group]
        place[key] = value
    return from_dict(content)


def train(output: Path, options: dict[str, Any] | None = None, *observers: Any) -> tuple[dict[str, Any], Path]:
    """Train in this process; the summary and the run directory."""
    from kdprune.pipeline.train import run

    with restored_surroundings():
        result = run(config_of(output, options), observers=observers)[0]
        return result.summary, result.path


class Recorder(Observer):
    """Remembers of each batch who was in it, and its losses."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def batch(self, batch: Any, result: Any) -> None:
        losses = {name: getattr(result, name).item() for name in ("loss", "kd_loss")}
        self.seen.append({"ids": batch.ids.tolist(), "views": batch.views.tolist(), **losses})


class StopIn(Observer):
    """Counts the steps of a run; after step `stop_in` of the run, a signal comes to this process."""

    def __init__(self, stop_in: int | None = None, number: signal.Signals = signal.SIGTERM) -> None:
        self.done, self.stop_in, self.number = 0, stop_in, number

    def step(self, step: int) -> None:
        self.done += 1
        if step == self.stop_in:
            os.kill(os.getpid(), self.number)


@contextlib.contextmanager
def restored_surroundings() -> Iterator[None]:
    """Accelerate and logging keep settings for the life of a process; each run here wants its own."""
    logger = logging.getLogger("kdprune")
    before = logger.level, logger.propagate, list(logger.handlers)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.handlers[:] = before[2]
        AcceleratorState._reset_state(True)
        GradientState._reset_state()


def command(*words: object, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """`train.py` (or another module or script named first) as a user starts it, waited for."""
    return subprocess.run(
        [sys.executable, *launcher, *map(str, words)], cwd=REPO, capture_output=True, text=True, timeout=200,
        env={**os.environ, **environment},
    )  # fmt: skip


def start(*words: object, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """The same in the background, what it says in a file."""
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=REPO, stdout=file, stderr=file, env={**os.environ, **environment}
        )


def kdprune(words: Sequence[object], log: Path) -> int:
    """The command line as the whole of a fresh process, what it says in a file. Begin it by `FRESH.Process`."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main([str(word) for word in words]))


def said_by(words: Sequence[object]) -> tuple[int, str, str]:
    """The command line in this process: its exit status, what it prints and what it complains of."""
    out, complaints = io.StringIO(), io.StringIO()
    with restored_surroundings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), complaints.getvalue()


def script(path: str, words: Sequence[object]) -> tuple[int, str, str]:
    """A script of the repository in this process, which has everything imported, as if it was started by python."""
    out, complaints = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, restored_surroundings():
        patch.setattr(sys, "argv", [path, *map(str, words)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
            try:
                runpy.run_path(str(REPO / path), run_name="__main__")
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return status, out.getvalue(), complaints.getvalue()


@contextlib.contextmanager
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A Ray cluster of two nodes on this machine, and the second one."""
    pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install 'kdprune[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 2**27}
    with pytest.MonkeyPatch.context() as patch:  # nodes find what this process finds
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_register_timeout_seconds", "300")  # of one that imports torch on a busy machine
        nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        second = nodes.add_node(**node)
    yield nodes, second
    nodes.shutdown()


def options(**settings: object) -> list[str]:
    """train__steps=5 → ['--train.steps=5']."""
    return [f"--{name.replace('__', '.')}={value}" for name, value in settings.items()]


def install(patch: pytest.MonkeyPatch, folder: Path, package: str, module: str, entry_points: dict[str, str]) -> None:
    """A package of someone else, as if it was installed, until the patch is undone.

    Args:
        module: its source.
        entry_points: by group, lines such as "l1 = acme:L1".
    """
    (folder / f"{package}.py").write_text(module)
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    sections = [f"[kdprune.{kind}]\n{lines}\n" for kind, lines in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(sections))
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, package, raising=False)
    for kind, lines in entry_points.items():
        for name in (line.split(" = ")[0] for line in lines.splitlines()):
            patch.setitem(registry._registered[kind], name, None)  # so that it is gone after the test,
            del registry._registered[kind][name]  # and to be looked for in it
    registry._entry_points.cache_clear()  # of this test, and (conftest.py) of the next


def unfinish(folder: Path) -> None:
    """Make an artefact one that was stopped just before its end."""
    record = json.loads((folder / "artefact.json").read_text())
    del record["files"]
    (folder / "artefact.json").write_text(json.dumps(record))


def metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def timeless(run: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns that only the clock decides."""
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in metrics(run)]


def only_run(output: Path) -> Path:
    """The one run directory in a folder."""
    (run,) = (path.parent for path in output.glob("*/config.yaml"))
    return run


def plain(text: str) -> str:
    """Console text on one line, without colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def need_fake_gpus() -> None:
    """Skip a test that works on fake tensors of a GPU where torch cannot have them (2.8 for CUDA, without a driver)."""
    try:
        with FakeTensorMode():
            torch.zeros(2, device="cuda")[:, None].requires_grad_().sum()
    except RuntimeError as error:
        pytest.skip(f"fake tensors of a GPU: {str(error).splitlines()[0]}")
