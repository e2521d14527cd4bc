"""Sweeps end to end: everything made once, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from helpers import command, config_of, plain, start, train

from kdprune.artefact import read_record
from kdprune.report.statistics import mean_and_sd
from kdprune.report.tables import mean_words
from kdprune.sweep.conduct import Sweep
from kdprune.sweep.journal import Journal
from kdprune.sweep.plan import Plan, make_plan
from kdprune.sweep.sections import read_study
from kdprune.sweep.task import Event, Task, end_of
from kdprune.training.interrupt import Interrupted

TINY: dict[str, Any] = {
    "data": {"augment": "crop(1)"},
    "student": {"model": "mlp_64"},
    "subset": {"keep_fraction": 0.5},
    "teacher": {"models": "mlp_64", "targets": "cached", "train": {"epochs": 2, "lr": 0.1}},
    "train": {"batch_size": 64, "lr": 0.1, "precision": "no", "epochs": 3, "checkpoint_every": "1"},
    "seeds": {"teacher": 0},
}
STUDY = {
    **TINY,
    "arms": {
        "none": {"teacher.models": None},
        "half": {"distill.alpha": 0.5},
        "whole": {"distill.alpha": 1.0},
        "large": {"distill.alpha": 1.0, "teacher.models": "mlp_800"},
    },
    "grid": {"seed": [0, 1]},
}


def write(folder: Path, **changes: Any) -> Path:
    """A study file."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return folder / "tiny.yaml"


def words(file: Path, *more: object) -> list[object]:
    return ["-m", "kdprune", "sweep", "--config", file, "--output", file.parent / "out", "--jobs", 2, *more]


def results(file: Path) -> list[dict[str, str]]:
    with open(file.parent / "out/sweeps/tiny/results.csv") as rows:
        return list(csv.DictReader(rows))


def made(file: Path) -> dict[str, Any]:
    """Weights of every run, teachers too, by its name."""
    runs = (path.parent for path in (file.parent / "out").rglob("summary.json"))
    return {run.name: read_record(run)["files"]["student.safetensors"] for run in runs}


def journal(file: Path) -> dict[str, dict[str, Any]]:
    return Journal(file.parent / "out/sweeps/tiny").last()


def wait_until(true: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def begin(tmp_path):
    """Starts sweeps in the background, what they say in `tmp_path / "log"`; none is left after the test."""
    begun = []

    def begin(*words: object) -> subprocess.Popen[bytes]:
        begun.append(start(*words, log=tmp_path / "log"))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep of eight runs that nothing happens to, and what it printed."""
    file = write(tmp_path_factory.mktemp("undisturbed"))
    done = command(*words(file))
    assert done.returncode == 0, done.stderr
    return file, done


@pytest.mark.slow
def test_a_sweep_makes_every_run_and_what_they_share_once(undisturbed):
    file, done = undisturbed
    rows = results(file)
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, s) for arm in STUDY["arms"] for s in ("0", "1")]
    assert {row["state"] for row in rows} == {"finished"}
    teachers = list((file.parent / "out/teachers").glob("*/summary.json"))
    assert len(teachers) == 2
    for row in rows:
        summary = json.loads((Path(row["run"]) / "summary.json").read_text())
        assert float(row["test_top1"]) == summary["test_top1"]
        of_its_own = row["arm"] == "large"  # what one run needs alone, it makes on its way
        assert bool(summary["cost"]["target_caching"]["forward_samples"]) == of_its_own
    of_half = [100 * float(row["test_top1"]) for row in rows if row["arm"] == "half"]
    for table in (done.stdout, (file.parent / "out/sweeps/tiny/results.md").read_text()):
        assert mean_words(*mean_and_sd(of_half)) in table
    assert "without a teacher" in plain(done.stderr), "arms that need other learning rates are warned of"


@pytest.mark.slow
def test_the_same_sweep_again_finds_everything(undisturbed, tmp_path):
    file, first = undisturbed
    written = entries(file)
    before = {path: path.stat().st_mtime_ns for path in (file.parent / "out").rglob("summary.json")}
    again = command(*words(file))
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert {path: path.stat().st_mtime_ns for path in (file.parent / "out").rglob("summary.json")} == before
    assert "8 runs" in again.stderr
    assert "shared" not in again.stderr, "nothing that finished runs share is looked for"
    assert entries(file) == written, "nothing was a task"
    copy = tmp_path / "copy"
    # Files of other times are read, and found as they were.
    shutil.copytree(file.parent / "out", copy, copy_function=shutil.copy)
    shutil.rmtree(copy / "sweeps/tiny/logs")
    rewritten = (copy / "sweeps/tiny/journal.jsonl").read_text().replace(str(file.parent / "out"), str(copy))
    (copy / "sweeps/tiny/journal.jsonl").write_text(rewritten)
    weights = Path(results(file)[0]["run"]) / "student.safetensors"
    (copy / weights.relative_to(file.parent / "out")).write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged = command(*[copy if word == file.parent / "out" else word for word in words(file)])
    assert damaged.returncode == 1
    assert "--remake true" in damaged.stderr
    assert damaged.stderr.count("finished: seed") == 7


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_undisturbed(undisturbed, begin, tmp_path):
    file = write(tmp_path / "killed")
    sweep = begin(*words(file))
    wait_until(lambda: len(list(file.parent.rglob("out/teachers/*/artefact.json"))) == 2)
    processes = psutil.Process(sweep.pid).children(recursive=True)
    assert processes
    sweep.kill()
    sweep.wait()
    wait_until(lambda: not any(map(alive, processes)), 30)  # no orphans
    sweep = begin(*words(file, "--retry", 1))
    wait_until(lambda: any(entry["id"].startswith("run-") for entry in journal(file).values()))
    victim = task_of(sweep)
    victim.kill()
    assert sweep.wait(200) == 0, (tmp_path / "log").read_text()
    assert made(file) == made(undisturbed[0])
    same = ("arm", "seed", "state", "test_top1", "test_loss", "steps")
    assert [[row[name] for name in same] for row in results(file)] == [
        [row[name] for name in same] for row in results(undisturbed[0])
    ]
    if victim_failed := [e for e in entries(file) if e["state"] == "failed"]:
        assert "SIGKILL" in victim_failed[0]["error"]


def alive(process: psutil.Process) -> bool:
    """A zombie is none; it waits for whoever has taken it over."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def task_of(sweep: subprocess.Popen[bytes]) -> psutil.Process:
    """A process that is making something: one that leads a group of its own."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = [p for p in psutil.Process(sweep.pid).children(recursive=True) if os.getpgid(p.pid) == p.pid]
        return bool(found)

    wait_until(look)
    return found[0]


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (file.parent / "out/sweeps/tiny/journal.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_interrupted_it_stops_all_runs_with_their_state(begin, tmp_path):
    train = {**TINY["train"], "epochs": 3000, "checkpoint_every": "60min"}
    file = write(tmp_path / "stopped", train=train, arms={"none": {"teacher.models": None}})
    sweep = begin(*words(file))
    logs = file.parent / "out/sweeps/tiny/logs"
    wait_until(lambda: sum("epoch 3/" in log.read_text() for log in logs.glob("run-*")) == 2)
    processes = psutil.Process(sweep.pid).children(recursive=True)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert "the same command goes on" in said
    wait_until(lambda: not any(map(alive, processes)), 30)
    assert len(list(file.parent.glob("out/*/checkpoints/step_*.pth"))) == 2
    assert all(row["state"] == "waiting" for row in results(file))


@pytest.mark.slow
def test_settings_are_tuned_for_each_arm_on_a_validation_part(tmp_path):
    file = write(
        tmp_path / "tuned",
        arms={"none": {"teacher.models": None}, "kd": {"distill.alpha": 1.0}},
        tune={"train.lr": [1e-6, 0.1, 1e9]},
    )
    done = command(*words(file))
    assert done.returncode == 0, done.stderr
    rows = results(file)
    assert {(row["arm"], row["train.lr"]) for row in rows} == {("none", "0.1"), ("kd", "0.1")}
    for row in rows:
        run = Path(row["run"])
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (config["train"]["lr"], config["data"]["val_fraction"]) == (0.1, 0)
        assert float(row["tuning_seconds"]) > 0
    finals = [entry for entry in entries(file) if "curve" in entry]
    assert len(finals) == 4
    for entry in finals:
        assert [point["train.lr"] for point in entry["curve"]] == [1e-6, 0.1, 1e9]
        assert entry["curve"][2]["val_top1"] is None or entry["curve"][2]["val_top1"] < 0.5
    for path in (file.parent / "out").rglob("summary.json"):
        of_tuning = "val_top1" in json.loads(path.read_text())
        assert of_tuning == (yaml.safe_load((path.parent / "config.yaml").read_text())["data"]["val_fraction"] == 0.1)
    teachers = [yaml.safe_load(path.read_text()) for path in file.parent.glob("out/teachers/*/config.yaml")]
    assert sorted(teacher["data"]["val_fraction"] for teacher in teachers) == [0.0, 0.1]


@pytest.mark.slow
def test_a_failed_run_is_written_down_and_the_others_go_on(tmp_path):
    file = write(
        tmp_path / "failed",
        grid={"seed": [0]},
        arms={
            "well": {"teacher.models": None},
            "diverging": {"teacher.models": None, "train.lr": 1e30},
            "lost": {"teacher.train.lr": 1e30},
        },
    )
    done = command(*words(file, "--retry", 1))
    assert done.returncode == 1
    rows = {row["arm"]: row for row in results(file)}
    assert {arm: row["state"] for arm, row in rows.items()} == {
        "well": "finished", "diverging": "failed", "lost": "lost"
    }  # fmt: skip
    assert "not finite" in rows["diverging"]["error"]
    assert "teacher mlp_64" in rows["lost"]["error"]
    attempts = [entry["attempt"] for entry in entries(file) if entry.get("coordinates", {}).get("arm") == "diverging"]
    assert attempts == [1, 2]
    assert "not finite" in entries(file)[-1].get("log", "not finite")
    assert "not finite" in done.stderr
    assert "1 missing" not in done.stdout.splitlines()[3]


@pytest.mark.slow
def test_a_dry_run_says_what_there_would_be_and_makes_nothing(tmp_path):
    file = write(tmp_path / "dry")
    done = command(*words(file, "--dry_run"))
    assert done.returncode == 0, done.stderr
    said = plain(done.stdout)
    assert "8 runs" in said
    assert said.count("teacher mlp_64, seed 0") == 2, "once below the targets of each seed"
    assert "targets of mlp_64+mlp_800" in said or "targets of mlp_64" in said
    assert "sample passes" in said
    assert not (file.parent / "out").exists()


class Scripted:
    """A launcher of one task at a time, which ends as it is told to; nothing is computed."""

    at_once = threads = 1
    remembered: frozenset[str] = frozenset()

    def __init__(self, end: Any) -> None:
        self.end, self.waiting = end, []

    @property
    def free(self) -> int:
        return 1 - len(self.waiting)

    def start(self, task: Task) -> None:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with open(task.log, "a") as file:
            file.write("it says something")
        self.waiting.append(task)

    def events(self, timeout: float) -> list[Event]:
        waiting, self.waiting = self.waiting, []
        return [Event(task.id, *self.end(task)) for task in waiting]

    def stop(self) -> None:
        pass


def tiny_study(folder: Path, **sections: Any) -> Plan:
    return make_plan(read_study("tiny", config_of(folder), sections), 0.1, 1)


def test_an_arm_for_which_nothing_can_be_chosen_says_what_failed_and_where_the_logs_are(tmp_path):
    plan = tiny_study(tmp_path, tune={"train.lr": [1e9, 1e10]}, grid={"seed": [0, 1]})
    sweep = Sweep(plan, tmp_path / "sweeps/tiny")
    sweep.conduct(Scripted(lambda task: ("failed", {"error": "the loss is not finite. Try a smaller one."})))
    (error,) = {status.details["error"] for status in sweep.failed if status.node.id.startswith("final-")}
    assert error.startswith("tune: train.lr cannot be chosen")
    assert "2 of 2 runs" in error
    assert "tuning train.lr 1e+09, seed 0 (the loss is not finite)" in error
    assert str(sweep.log(plan.arms[0].trials[0].runs[0].id)) in error
    _, path = train(tmp_path, {"train.steps": 1})  # without a val_top1
    sweep = Sweep(plan, tmp_path / "sweeps/other")
    sweep.conduct(Scripted(lambda task: ("finished", {"path": str(path)})))
    assert {"--data.val_fraction" in status.details["error"] for status in sweep.failed} == {True}


def test_what_outlived_another_sweep_is_found_before_anything_is_begun(tmp_path):
    plan, begun = tiny_study(tmp_path, grid={"seed": [0, 1, 2]}), []
    launcher = Scripted(lambda task: (begun.append(task.id), ("failed", {"error": "x"}))[1])
    launcher.remembered = frozenset({list(plan.runs)[2]})
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / f"{list(plan.runs)[2]}.log"
    log.write_text("it goes on\n")
    Sweep(plan, tmp_path).conduct(launcher)
    assert begun == [list(plan.runs)[i] for i in (2, 0, 1)]
    assert log.read_text() == "it goes on\nit says something", "no attempt of its own"


def test_attempts_are_told_apart_in_a_log(tmp_path):
    plan = tiny_study(tmp_path, grid={"seed": [0]})
    ends = iter([("failed", {"error": "x"}), ("failed", {"error": "x"}), ("failed", {"error": "x"})])
    for retry in (1, 0):  # twice in one sweep, and once more by the same command
        sweep = Sweep(plan, tmp_path / "sweeps/tiny", retry)
        sweep.conduct(Scripted(lambda task: next(ends)))
    (log,) = (tmp_path / "sweeps/tiny/logs").iterdir()
    said = log.read_text().splitlines()
    assert [line for line in said if "attempt" not in line] == ["it says something"] * 3
    assert [line.partition(",")[0] for line in said[1::2]] == ["----- attempt 2", "----- attempt 3"]
    assert time.strftime("%Y-%m-%d") in said[1]
    assert end_of(log) == "it says something"


def test_seconds_of_what_is_stopped_are_written_down(tmp_path):
    """A plan pays for all attempts of its pilots."""
    sweep = Sweep(tiny_study(tmp_path, grid={"seed": [0]}), tmp_path / "sweeps/tiny")

    def stopped(task: Task) -> tuple[str, dict[str, Any]]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return "running", {}

    class Stopping(Scripted):
        def events(self, timeout: float) -> list[Event]:
            (task,) = self.waiting
            found = super().events(timeout)
            self.waiting = [task] if found[0].state == "running" else []
            return found

        def stop(self) -> None:
            self.end = lambda task: ("failed", {"error": "it was interrupted"})

    with pytest.raises(Interrupted):
        sweep.conduct(Stopping(stopped))
    (entry,) = Journal(tmp_path / "sweeps/tiny").entries()
    assert entry["state"] == "stopped"
    assert 0.05 <= entry["seconds"] < 5
    assert sweep.status[entry["id"]].state == "waiting"


def test_a_sweep_is_led_by_one_process(tmp_path):
    with Journal(tmp_path).owned(), pytest.raises(ValueError, match="another process"), Journal(tmp_path).owned():
        pass
    with Journal(tmp_path).owned():
        pass


def test_a_journal_that_was_cut_goes_on(tmp_path):
    journal = Journal(tmp_path)
    journal.write({"id": "a", "state": "failed"})
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"id": "b", "sta')
    journal.write({"id": "a", "state": "finished", "path": str(tmp_path)})
    assert journal.last() == {"a": {"id": "a", "state": "finished", "path": str(tmp_path)}}
    assert journal.seen_finished() == {}, "its directory does not say so"
