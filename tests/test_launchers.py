"""The same sweep on a Ray cluster and by jobs of a batch system: the same results, whatever is lost on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import command, config_of, plain, said_by, start, two_nodes
from test_sweep import TINY, alive, entries, journal, made, results, words, write
from test_sweep import wait_until as wait_until_within

from kdprune.cli.commands import parse
from kdprune.cli.launchers import UNUSED
from kdprune.cli.unused import warn_of_unused
from kdprune.sweep.apart import Files
from kdprune.sweep.job import Job, stop_file
from kdprune.sweep.task import Task

pytestmark = pytest.mark.timeout(900)  # each starts dozens of processes that import torch

STUDY: dict[str, Any] = {"arms": {"none": {"teacher.models": None}, "half": {"distill.alpha": 0.5}}}  # with two seeds
LONG: dict[str, Any] = {
    "arms": {"none": {"teacher.models": None}},
    "train": {**TINY["train"], "epochs": 3000, "checkpoint_every": "60min"},
}


@pytest.fixture(scope="module")
def locally(tmp_path_factory):
    """The sweep on this machine."""
    file = write(tmp_path_factory.mktemp("locally"), **STUDY)
    done = command(*words(file))
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture
def begin(tmp_path):
    begun = []

    def begin(*words: object, **environment: str) -> Any:
        begun.append(start(*words, log=tmp_path / "log", **environment))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def wait_until(true: Any, seconds: float = 240) -> None:
    wait_until_within(true, seconds)


def stopped_at_a_checkpoint(file: Path) -> None:
    """Both runs of a long sweep have left one, and wait for the same command."""
    assert len({path.parent for path in file.parent.glob("out/*/checkpoints/step_*.pth")}) == 2
    assert all(row["state"] == "waiting" for row in results(file))


def epochs_done(file: Path, epoch: int) -> bool:
    logs = list((file.parent / "out/sweeps/tiny/logs").glob("run-*.log"))
    return len(logs) == 2 and all(f"epoch {epoch}/" in log.read_text() for log in logs)


# --- Ray --------------------------------------------------------------------------------------------------------------


def on_ray(file: Path, address: str, *more: object) -> list[object]:
    line = words(file)
    del line[line.index("--jobs") : line.index("--jobs") + 2]
    return [*line, "--launcher", "ray", "--ray_address", address, *more]


@pytest.mark.slow
def test_a_cluster_of_two_nodes_makes_what_one_machine_makes_though_it_loses_one(locally, begin, tmp_path):
    file = write(tmp_path / "ray", **STUDY)
    with two_nodes() as (nodes, second):
        sweep = begin(*on_ray(file, nodes.address, "--retry", 2))
        wait_until(lambda: any(entry["id"].startswith("run-") for entry in journal(file).values()))
        nodes.remove_node(second, allow_graceful=False)
        assert sweep.wait(400) == 0, (tmp_path / "log").read_text()
    assert made(file) == made(locally)
    assert [row["state"] for row in results(file)] == ["finished"] * 4
    for entry in entries(file):
        assert entry["state"] == "finished" or "its worker or node was lost" in entry["error"]


@pytest.mark.slow
def test_a_cluster_is_left_with_checkpoints_and_its_head_is_missed(begin, tmp_path):
    file = write(tmp_path / "ray", **LONG)
    with two_nodes() as (nodes, _):
        sweep = begin(*on_ray(file, nodes.address))
        wait_until(lambda: epochs_done(file, 3))
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(200) == 130, (tmp_path / "log").read_text()
        stopped_at_a_checkpoint(file)
        sweep = begin(*on_ray(file, nodes.address))
        wait_until(lambda: (tmp_path / "log").read_text().count("running:") == 4)
        nodes.remove_node(nodes.head_node, allow_graceful=False)
        assert sweep.wait(240) == 1, (tmp_path / "log").read_text()
        assert "head node of the Ray cluster" in (tmp_path / "log").read_text()
    wait_until(lambda: not [p for p in psutil.process_iter(["environ"]) if _is_task_of(p, file)], 60)
    stopped_at_a_checkpoint(file)


def _is_task_of(process: psutil.Process, file: Path) -> bool:
    """Whether it writes to a log of the sweep."""
    with contextlib.suppress(psutil.Error, OSError):
        return alive(process) and str(file.parent) in os.readlink(f"/proc/{process.pid}/fd/1")
    return False


def test_what_a_run_asks_a_cluster_for():
    from kdprune.sweep.ray_room import Asked, asked, room

    cpus, mixed = [{"CPU": 4.0}, {"CPU": 2.0}], [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}]
    assert asked(cpus, None, None, 1, None) == Asked(1, 0)
    assert asked(cpus, None, None, 2, None) == Asked(2, 0, 2)
    assert asked(mixed, None, None, 1, 4) == Asked(1, 0.25)
    assert asked(mixed, 4, None, 2, None) == Asked(4, 2, 2)
    assert room(cpus, Asked(2, 0)) == 3
    assert room(mixed, Asked(1, 0.25)) == 8
    assert room(mixed, Asked(1, 0)) == 16
    for wrong, named in [((cpus, 5, None, 1, None), "--cpus: 5"), ((cpus, None, 1, 1, None), "--gpus: 1"),
                         ((mixed, None, 2, 1, 2), None), ((mixed, None, None, 3, None), "--gpus: 3")]:  # fmt: skip
        with contextlib.nullcontext() if named is None else pytest.raises(ValueError, match=named):
            asked(*wrong)


def test_a_folder_that_nodes_do_not_share_is_refused(tmp_path):
    from kdprune.sweep.node import look, version
    from kdprune.sweep.ray_launcher import refuse

    (tmp_path / "token").write_text("a")
    here = os.getcwd()
    assert look(here, str(tmp_path / "token"), "a", version("kdprune")) == ""
    assert "another" in look(here, str(tmp_path / "token"), "b", version("kdprune"))
    assert "kdprune" in look(here, str(tmp_path / "token"), "a", "0.0")
    missing = look(here, str(tmp_path / "none"), "a", version("kdprune"))
    assert "none" in missing
    refuse(tmp_path, {"one": "", "other": ""})
    with pytest.raises(ValueError, match=r"--output: .*under the same path.*1 of 2 \(other: No such"):
        refuse(tmp_path, {"one": "", "other": missing})


def test_a_cluster_that_is_not_there_or_does_not_answer_is_said(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("kdprune.runs.ray_cluster.REACHED", 0.3)
    file = write(tmp_path / "none", **STUDY)
    begun = time.monotonic()
    for address, said in [("127.0.0.1:1", "refused"), ("10.255.255.1:6379", "does not answer in 0.3 seconds")]:
        status, _, text = said_by([str(word) for word in on_ray(file, address)][2:])
        assert status == 2
        assert f"error: --ray_address: no Ray cluster at '{address}'" in plain(text)
        assert "Errno" not in text
        if "refused" in said or _is_silent(address):
            assert said in plain(text)
    assert time.monotonic() - begun < 60


def _is_silent(address: str) -> bool:
    """Whether packets to an address vanish; some networks refuse them instead."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 0.3).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


# --- Slurm ------------------------------------------------------------------------------------------------------------


def by_jobs(file: Path, *more: object) -> list[object]:
    """By submitit, whose local executor has processes for jobs."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'kdprune[slurm]'")
    return words(file, "--launcher", "slurm", "--slurm_cluster", "local", *more)


def jobs_of(file: Path) -> dict[str, str]:
    """The numbers of jobs that are under way, by their tasks."""
    folder = file.parent / "out/sweeps/tiny/jobs"
    return {path.name: path.read_text() for path in folder.glob("*.job.json")}


@pytest.mark.slow
def test_jobs_make_what_one_machine_makes_and_are_found_again_after_a_kill(locally, begin, tmp_path):
    file = write(tmp_path / "slurm", **STUDY)
    sweep = begin(*by_jobs(file))
    wait_until(lambda: any(entry["id"].startswith("run-") for entry in journal(file).values()))
    wait_until(lambda: jobs_of(file))
    sweep.kill()
    sweep.wait()
    known = jobs_of(file)
    assert known
    done = command(*by_jobs(file))
    assert done.returncode == 0, done.stderr
    assert plain(done.stderr).count("is found again") == len(known)
    assert made(file) == made(locally)
    assert not jobs_of(file)
    tasks = [entry["id"] for entry in entries(file) if entry["id"].startswith("run-")]
    assert len(tasks) == len(set(tasks)), "each ended once"


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_and_those_that_are_stopped_leave_checkpoints(begin, tmp_path):
    file = write(tmp_path / "slurm", **LONG)
    sweep = begin(*by_jobs(file))
    wait_until(lambda: epochs_done(file, 3))
    one = next(p for p in psutil.Process(sweep.pid).children(recursive=True) if "submitit.core._submit" in p.cmdline())
    one.send_signal(signal.SIGUSR2)  # as Slurm does before a time limit or a preemption
    wait_until(lambda: any("goes on at step" in log.read_text() for log in file.parent.rglob("run-*.log")))
    assert not (tmp_path / "log").read_text().count("failed")
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(200) == 130, (tmp_path / "log").read_text()
    stopped_at_a_checkpoint(file)
    assert not jobs_of(file)


@pytest.mark.slow
def test_a_job_that_fails_or_dies_is_said_with_the_end_of_its_log(begin, tmp_path):
    arms = {"diverging": {"teacher.models": None, "train.lr": 1e30}}
    file = write(tmp_path / "failed", arms=arms, grid={"seed": [0]})
    done = command(*by_jobs(file))
    assert done.returncode == 1
    (entry,) = entries(file)
    assert "not finite" in entry["error"]
    assert "not finite" in entry["log"]
    file = write(tmp_path / "died", **{**LONG, "grid": {"seed": [0]}})
    sweep = begin(*by_jobs(file))
    wait_until(lambda: any("epoch 2/" in log.read_text() for log in file.parent.rglob("run-*.log")))
    for process in psutil.Process(sweep.pid).children(recursive=True):
        process.kill()
    assert sweep.wait(120) == 1
    assert "epoch 2/" in entries(file)[-1]["log"]


def test_a_job_ends_its_task_when_it_is_asked_to(tmp_path, monkeypatch):
    """By a file, whose writer may be on another machine."""
    place = tmp_path / "run-1"
    Files(place).write(Task("run-1", config_of(tmp_path), tmp_path / "log"))
    sleeper = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]
    monkeypatch.setattr("kdprune.sweep.job.command", lambda *_: sleeper)
    stop_file(place).write_text("")
    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    job = Job(place, tmp_path / "log", 1)
    job()
    signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - begun < 30
    assert job._process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), ("30:20", 31), ("2:00:00", 120), ("1-12", 2160), ("1-0:30", 1470), ("2-03:04:05", 3065),
     ("", None), ("-1", None), ("0", None), ("1:2:3:4", None), ("soon", None), ("1-", None), ("-", None)],
)  # fmt: skip
def test_time_limits_are_those_of_slurm(text, expected):
    from kdprune.sweep.slurm import minutes

    if expected is None:
        with pytest.raises(ValueError, match="--slurm_time"):
            minutes(text)
    else:
        assert minutes(text) == expected


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--launcher", "slum"], "launcher"),
        (["--jobs", "0"], "--jobs: 0 given"),
        (["--processes", "0"], "--processes: 0 given"),
        (["--processes", "3"], "--train.batch_size: 64 given"),
        (["--launcher", "slurm", "--slurm_cluster", "local", "--slurm_time", "soon"], "--slurm_time: 'soon' given"),
        (["--launcher", "slurm", "--slurm_cluster", "local", "--cpus", "0"], "--cpus: 0 given"),
        (["--launcher", "slurm", "--slurm_cluster", "local", "--slurm_mem", "-1"], "--slurm_mem: -1.0 given"),
        (["--launcher", "ray", "--runs_per_gpu", "0"], "--runs_per_gpu: 0 given"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_runs(tmp_path, options, said):
    if options[:2] == ["--launcher", "slurm"]:
        pytest.importorskip("submitit")
    if options[:2] == ["--launcher", "ray"]:
        pytest.importorskip("ray")
    file = write(tmp_path / "wrong", **STUDY)
    status, _, text = said_by(["sweep", "--config", file, "--output", tmp_path / "out", *options])
    assert status == 2
    assert said in plain(text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("launcher", "name"), [("ray", "Ray"), ("slurm", "submitit")])
def test_what_is_not_installed_is_said(tmp_path, monkeypatch, launcher, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = write(tmp_path / "none", **STUDY)
    status, _, text = said_by(["sweep", "--config", file, "--output", tmp_path / "out", "--launcher", launcher])
    assert status == 2
    assert f"--launcher: {name} is not installed: pip install 'kdprune[{launcher}]'" in plain(text)


@pytest.mark.slow
def test_options_of_other_launchers_have_no_effect(tmp_path):
    file = write(tmp_path / "dry", grid={"seed": [0]}, arms={"none": {"teacher.models": None}})
    options = ["--ray_address", "x", "--slurm_time", "1", "--cpus", "2"]
    status, _, text = said_by(["sweep", "--config", file, "--output", tmp_path / "out", "--dry_run", *options])
    assert status == 0, text
    assert "--ray_address has no effect: it is of --launcher ray" in plain(text)
    assert "--slurm_time has no effect: it is of --launcher slurm" in plain(text)
    assert "--cpus has no effect: it is of --launcher ray and slurm" in plain(text)


@pytest.mark.parametrize(
    ("line", "gpus", "said"),
    [
        ("--runs_per_gpu 2", [], "--runs_per_gpu has no effect: this machine has no GPU"),
        ("--runs_per_gpu 2", ["0"], ""),
        ("--runs_per_gpu 2 --launcher ray", [], ""),
        ("--tune_seeds 2 --tune_val_fraction 0.2", [], "--tune_val_fraction, --tune_seeds have no effect: without"),
        ("--tune_val_fraction 0.2 --tune.train.lr 0.1,0.2", [], ""),
        (
            "--tune_val_fraction 0.2 --tune.train.lr 0.1,0.2 --data.val_fraction 0.3", [],
            "--tune_val_fraction has no effect: --data.val_fraction 0.3 is what judges",
        ),
    ],
)  # fmt: skip
def test_options_that_this_machine_or_study_has_no_use_for_say_so(monkeypatch, caplog, line, gpus, said):
    monkeypatch.setattr("kdprune.sweep.share.gpus", lambda: gpus)
    _, options = parse(["sweep", "--data.dataset", "digits", *line.split()])
    warn_of_unused(options, UNUSED)
    assert said in caplog.text
    assert bool(said) == ("no effect" in caplog.text)
