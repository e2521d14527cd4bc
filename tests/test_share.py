"""Runs that are under way at once share a machine: cores, GPUs, processes; and a run of several processes."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import FRESH, config_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from kdprune.pipeline.needs import Need
from kdprune.sweep import local
from kdprune.sweep import task as tasks
from kdprune.sweep.apart import Files, Follower
from kdprune.sweep.job import command
from kdprune.sweep.local import LocalLauncher
from kdprune.sweep.share import Share, shares
from kdprune.sweep.task import Event, Task

some = st.none() | st.integers(1, 9)


@given(some, st.integers(1, 32), st.integers(0, 8), st.integers(1, 4), some)
def test_every_run_has_its_part_of_the_machine(jobs, cores, gpus, processes, runs_per_gpu):
    names = [f"GPU-{number}" for number in range(gpus)]
    if gpus and processes > gpus:
        with pytest.raises(ValueError, match="--processes"):
            shares(jobs, range(cores), names, processes, runs_per_gpu)
        return
    slots = shares(jobs, range(cores), names, processes, runs_per_gpu)
    assert 1 <= len(slots) <= (jobs or 9 * 8)
    pinned = [core for slot in slots for core in slot.cores]
    assert len(pinned) == len(set(pinned))
    assert set(pinned) == (set(range(cores)) if 1 < len(slots) <= cores else set())
    if len(slots) <= cores:
        assert sum(slot.threads * processes for slot in slots) <= max(cores, processes * len(slots))
    groups = Counter(slot.gpus for slot in slots)
    if not gpus:
        assert set(groups) == {None}
        return
    assert all(group is not None and len(group) == processes for group in groups)
    assert len({gpu for group in groups for gpu in group}) == processes * len(groups)
    assert max(groups.values()) <= (runs_per_gpu or len(slots))
    assert max(groups.values()) - min(groups.values()) <= 1
    free = gpus // processes
    assert len(groups) == min(free, len(slots)), "no GPU is shared while another is idle"


def test_small_runs_are_packed_on_gpus_as_many_as_are_asked_for():
    def where(*given):
        return ["+".join(slot.gpus) for slot in shares(*given)]

    assert where(None, range(8), ["4", "7"], 1, 2) == ["4", "7", "4", "7"]
    assert where(3, range(8), ["4", "7"], 1, 2) == ["4", "7", "4"]
    assert where(9, range(8), ["4", "7"], 1, 2) == ["4", "7", "4", "7"]
    assert where(4, range(8), ["0", "1", "2", "3", "4"], 2, None) == ["0+1", "2+3", "0+1", "2+3"]
    assert where(1, range(8), ["0"]) == ["0"]


def test_what_a_run_has_reaches_its_process():
    assert Share(3).environment() == {"OMP_NUM_THREADS": "3"}
    assert Share(1, gpus=("4", "7")).environment() == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4,7"}


@pytest.mark.parametrize("option", ["jobs", "processes", "runs_per_gpu"])
def test_a_number_below_one_is_refused(option):
    with pytest.raises(ValueError, match=f"--{option}: 0 given"):
        LocalLauncher(**{option: 0})


# --- a task as a command ----------------------------------------------------------------------------------------------


def test_a_task_is_read_as_it_was_written(tmp_path):
    config = config_of(tmp_path, {"teacher.models": "mlp_64", "subset.keep_fraction": 0.5})
    need = Need("training", "teacher mlp_64", "training-1", config, "teachers")
    for task in (Task("run-1", config, tmp_path / "a.log"), Task("training-1", need, tmp_path / "b.log")):
        files = Files(tmp_path / task.id)
        files.write(task)
        assert files.read() == task


def test_what_has_become_of_a_task_is_followed_line_by_line(tmp_path):
    files = Files(tmp_path / "run.1")
    follower = Follower(files)
    assert list(follower.events()) == []
    one, other = Event("run.1", "running", {"epoch": 1}), Event("run.1", "finished", {"path": "x"})
    files.tell(one)
    with open(files.events, "ab") as file:
        file.write(b'no event\n{"id": "run.1", "sta')
    assert list(follower.events()) == [one]
    with open(files.events, "ab") as file:
        file.write(b'te": "unheard of", "details": {}}\n')
    files.tell(other)
    assert list(follower.events()) == [other]
    files.write(Task("run.1", config_of(tmp_path), tmp_path / "log"))
    assert list(Follower(files).events()) == [], "of an earlier attempt"


def test_a_damaged_task_is_said(tmp_path):
    files = Files(tmp_path / "x")
    files.write(Task("x", config_of(tmp_path), tmp_path / "log"))
    content = json.loads(files.task.read_text())
    files.task.write_text(json.dumps({**content, "kind": "dance"}))
    with pytest.raises(ValueError, match="dance"):
        files.read()


def test_several_processes_are_started_by_torchrun():
    assert "torch.distributed.run" not in command(Path("x"), 1)
    words = command(Path("x"), 3)
    assert words[words.index("--nproc_per_node") + 1] == "3"


def says_what_is_frozen(connection, folder: Path) -> None:
    """The process of a task that says how many objects no collection of garbage looks at, and does nothing else."""
    tasks.perform = lambda it, tell: Event(it.id, "finished", {"frozen": gc.get_freeze_count()})
    local._work(connection, Task("run-1", config_of(folder), folder / "log"), Share(1))


def test_a_task_does_not_look_through_what_was_imported(tmp_path):
    ours, theirs = FRESH.Pipe(duplex=False)
    process = FRESH.Process(target=says_what_is_frozen, args=(theirs, tmp_path))
    process.start()
    theirs.close()
    assert ours.recv().details["frozen"] > 100_000, "torch alone has more"
    process.join()


# --- processes of their own -------------------------------------------------------------------------------------------


def performed(launcher: LocalLauncher, task: Task) -> list[Event]:
    events: list[Event] = []
    launcher.start(task)
    while not events or events[-1].state == "running":
        events += launcher.events(1)
    return events


@pytest.mark.slow
def test_a_run_by_two_processes_equals_that_by_one_but_for_rounding(tmp_path):
    found = {}
    for processes in (1, 2):
        config = config_of(tmp_path / str(processes), {"train.steps": None, "train.epochs": 2})
        with LocalLauncher(1, "digits", processes) as launcher:
            events = performed(launcher, Task("run-1", config, tmp_path / f"{processes}.log"))
        assert events[-1].state == "finished", events[-1].details
        assert [event.details["epoch"] for event in events[:-1]] == [1, 2]
        run = Path(events[-1].details["path"])
        assert json.loads((run / "environment.json").read_text())["processes"] == processes
        found[processes] = load_file(run / "student.safetensors")
    for name, tensor in found[1].items():
        torch.testing.assert_close(found[2][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_what_is_wrong_with_a_run_by_two_processes_is_said_once(tmp_path):
    config = config_of(tmp_path, {"train.lr": 1e30})
    with LocalLauncher(1, "digits", 2) as launcher:
        (event,) = performed(launcher, Task("run-1", config, tmp_path / "log"))
    assert event.state == "failed"
    assert "not finite" in event.details["error"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system pins no process")
def test_a_run_is_pinned_to_its_cores(tmp_path):
    core = max(os.sched_getaffinity(0))
    with LocalLauncher(slots=[Share(1, cores=(core,))]) as launcher:
        launcher.start(Task("run-1", config_of(tmp_path, {"train.steps": 10**6}), tmp_path / "log"))
        ((_, process, _),) = launcher._tasks.values()
        while not (tmp_path / "log").exists() or "epoch 1" not in (tmp_path / "log").read_text():
            launcher.events(0.2)
        assert os.sched_getaffinity(process.pid) == {core}
