"""Two processes against one: the same samples in each global batch, the same losses, one checkpoint, one cache.

What both do in their one session is in two_processes.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers import FRESH, Recorder, config_of, metrics, only_run, options, plain, restored_surroundings, start, train
from helpers import command as run_command
from test_losses import crd_steps, dist_step
from two_processes import CACHED, FEATURES, INFOBATCH, KD, RECORDED, SELECTED, SPARSE, STOPPED_AT, session

from kdprune.config import DataConfig
from kdprune.data.dataset import open_data
from kdprune.data.subset import load_subset
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.models.mask_file import load_mask
from kdprune.pipeline.cache import cache
from kdprune.pipeline.train import record
from kdprune.records.dynamics import Dynamics
from kdprune.records.rows import RowRecord
from kdprune.records.statistics import statistics

CPU = {"ACCELERATE_USE_CPU": "true"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def together(tmp_path_factory, digits_teacher) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the session, with a folder for each claim, and what each process gave for it."""
    folder, port = tmp_path_factory.mktemp("two"), free_port()
    both = [FRESH.Process(target=session, args=(rank, port, folder, str(digits_teacher))) for rank in range(2)]
    end = time.monotonic() + 150
    try:
        for process in both:
            process.start()
        while any(process.exitcode is None for process in both) and not list(folder.glob("error*")):
            assert time.monotonic() < end, "the two processes wait for each other"
            time.sleep(0.05)
    finally:
        for process in both:
            process.kill()
    assert not list(folder.glob("error*")), next(folder.glob("error*")).read_text()
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, digits_teacher):
    """What one process sees of the training that two share, its summary and its run."""
    recorder = Recorder()
    summary, run = train(tmp_path_factory.mktemp("one"), {**KD, "teacher.models": str(digits_teacher)}, recorder)
    return recorder.seen, summary, run


def test_two_processes_share_the_batches_of_one(together, alone):
    folder, (first, second) = together
    seen, summary, run = alone
    run_of_both = only_run(folder / "distillation")
    assert json.loads((run_of_both / "environment.json").read_text())["processes"] == 2
    assert len(seen) == KD["train.steps"]
    for one, a, b in zip(seen, first["distillation"], second["distillation"], strict=True):
        assert a["ids"] + b["ids"] == one["ids"]
        assert a["views"] + b["views"] == one["views"]
        for loss in ("loss", "kd_loss"):
            assert (a[loss] + b[loss]) / 2 == pytest.approx(one[loss], abs=1e-4)
    for row, other in zip(metrics(run), metrics(run_of_both), strict=True):
        for name in ("train_loss", "task_loss", "kd_loss", "test_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-4), name
        for name in ("epoch", "step", "lr", "alpha"):
            assert float(row[name]) == float(other[name])
        # one image or two may lie on the border between two classes
        assert float(row["test_top1"]) == pytest.approx(float(other["test_top1"]), abs=2 / 450)
    assert (run / "subset.json").read_bytes() == (run_of_both / "subset.json").read_bytes()
    assert json.loads((run_of_both / "summary.json").read_text())["images_seen"] == summary["images_seen"]


def test_two_processes_leave_out_the_samples_that_one_leaves_out(together, tmp_path, digits_teacher):
    """By the losses of both, and though they were stopped on the way."""
    recorder = Recorder()
    summary, _ = train(tmp_path, {**INFOBATCH, "teacher.models": str(digits_teacher)}, recorder)
    assert summary["dynamic"]["saved"] > 0.1
    halves = zip(*(result["dynamic"] for result in together[1]), strict=True)
    for one, (a, b) in zip(recorder.seen, halves, strict=True):
        assert a["ids"] + b["ids"] == one["ids"]
        assert (a["loss"] + b["loss"]) / 2 == pytest.approx(one["loss"], abs=1e-4)


def test_two_processes_prune_what_one_prunes(together, tmp_path):
    """Also on the way, where all weights are zero on both that are zero on one."""
    folder, (first, second) = together
    assert first["pruning"] == second["pruning"]
    summary, _ = train(tmp_path, SPARSE)
    assert summary["weight_pruning"]["mask_hash"] == first["pruning"][0]
    run = folder / "pruning" / "at_3"
    weights, mask = load_model(run / "student.safetensors").model.state_dict(), load_mask(run)
    assert all(torch.equal(weights[name] != 0, kept) for name, kept in mask.kept.items())


def test_the_parameters_of_a_loss_are_those_of_one_process(together, tmp_path, digits_teacher):
    """A projector and two heads, trained beside the student, and a queue that both fill."""
    _, run = train(tmp_path, {**FEATURES, "teacher.models": str(digits_teacher)})
    for row, other in zip(metrics(run), metrics(only_run(together[0] / "features")), strict=True):
        for name in ("kd_loss", "test_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3), name


def test_losses_that_look_at_the_whole_batch_gather_it(together):
    both = zip(*(result["gathering_losses"] for result in together[1]), strict=True)
    for step, results in zip((dist_step, crd_steps), both, strict=True):
        expected, expected_loss = step(slice(None))
        for got, _ in results:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close((results[0][1] + results[1][1]) / 2, expected_loss)


def test_two_processes_fill_what_one_reads(together, digits_teacher):
    folder = together[0] / "filling"
    settings = {**CACHED, "teacher.models": str(digits_teacher), "teacher.targets": "cached"}
    summary, run = train(folder, settings)
    views, kept = len(metrics(run)), summary["kept"]
    assert [result["filling"] for result in together[1]] == [views * kept // 2] * 2
    assert summary["cost"]["target_caching"]["forward_samples"] == 0
    assert summary["cost"]["student_training"]["teacher_forward_samples"] == 0
    with restored_surroundings():
        verified = cache(config_of(folder, settings), verify=True)
    assert (verified.written, verified.healed) == (0, 0)
    assert verified.error < 5e-3  # on a GPU, TF32 against a CPU


def test_a_batch_that_two_processes_cannot_share_is_refused_by_both(together):
    for result in together[1]:
        assert result["odd_batch"].startswith("--train.batch_size: 95 given")
        assert result["odd_batch"].endswith("a multiple of 2")


def test_a_signal_to_one_process_stops_both_with_one_checkpoint_and_they_go_on(together):
    folder, results = together
    reasons, files = zip(*(result["stop"] for result in results), strict=True)
    assert all(f"stopped at step {STOPPED_AT} of 26" in reason for reason in reasons)
    assert reasons[1].startswith("SIGTERM")
    assert files[0] == files[1] == [f"step_{STOPPED_AT:09d}.pth"]
    broken, whole = only_run(folder / "stop"), only_run(folder / "distillation")
    assert (broken / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_two_processes_record_every_sample_once(together, tmp_path):
    """The models of both differ by rounding, and so do the statistics of what they say; also where each process takes
    its share of a batch in two parts."""
    for view in ("plain", "training"):
        _, alone = train(tmp_path, {**RECORDED, "train.record": view, "name": view})
        for run in (together[0] / "recording" / name for name in (view, f"{view}_in_parts")):
            ours, theirs = Dynamics([alone]), Dynamics([run])
            assert ours.about == theirs.about
            for name in ("loss", "error_norm", "margin", "entropy", "kl"):
                pairs = (record.read(name, 0, 1347) for record in (ours, theirs))
                torch.testing.assert_close(*pairs, rtol=1e-2, atol=5e-3, equal_nan=True)
            assert sorted(os.listdir(alone / "dynamics")) == sorted(os.listdir(run / "dynamics"))


def test_what_two_processes_record_and_report_is_of_the_model_that_is_saved(together):
    """Each has running statistics of its own until the passes over data."""
    run = only_run(together[0] / "normalising")
    built = load_model(run / "student.safetensors")
    with restored_surroundings():
        data = open_data(DataConfig(), progress=False)
    inputs = Inputs(built.spec)
    with torch.no_grad():
        logits, held_out = (built.model.eval()(inputs(split.images)) for split in (data.train, data.test))
    error_norm = statistics(logits, torch.from_numpy(data.train.labels))[1]
    torch.testing.assert_close(Dynamics([run]).read("error_norm", 0, 1347)[0, -1], error_norm, rtol=2e-3, atol=1e-4)
    top1 = (held_out.argmax(1).numpy() == data.test.labels).mean()
    assert json.loads((run / "summary.json").read_text())["test_top1"] == pytest.approx(top1, abs=1e-6)


def test_two_processes_pass_over_every_sample_once(together, tmp_path, digits_teacher):
    with restored_surroundings():
        (alone,) = record("teacher", config_of(tmp_path, {**RECORDED, "teacher.models": str(digits_teacher)}))
    (both,) = (together[0] / "passing" / "records").glob("teacher-*")
    assert both.name == alone.name
    for name in RowRecord(alone).about.columns:
        pairs = (RowRecord(folder).rows(name)[:] for folder in (alone, both))
        # features are kept in float16, where a difference of 1e-7 may fall to either side
        np.testing.assert_allclose(*pairs, rtol=1e-3 if name == "features" else 1e-5, atol=1e-6)


def test_two_processes_select_what_one_does(together, tmp_path):
    _, run = train(tmp_path, {**SELECTED, "subset.scorer": "el2n"})
    ours, theirs = (load_subset(r / "subset.json").ids for r in (run, only_run(together[0] / "passing")))
    assert len(np.setdiff1d(ours, theirs)) <= len(ours) // 100  # neighbours in the ranking, apart by rounding


# --- as users start them ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_both_with_one_checkpoint(tmp_path, digits_teacher):
    """As from a cluster. The launcher is torch's own: `accelerate launch --cpu` starts one process without an MPI
    host file."""
    settings = {
        **KD, "data.dataset": "digits", "student.model": "mlp_64", "teacher.models": digits_teacher,
        "train.precision": "no",
    }  # fmt: skip
    long = options(**{**settings, "output": tmp_path, "train.steps": 60_000, "train.checkpoint_every": "0.01min"})
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    log = tmp_path / "log"
    process = start(*launcher, "train.py", *long, log=log, **CPU)
    try:
        wait_for_checkpoint(tmp_path, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        process.kill()
    said = plain(log.read_text())
    assert said.count("SIGTERM: stopped at step") == 1
    stopped_at = int(said.split("SIGTERM: stopped at step ")[1].split()[0])
    newest = max(only_run(tmp_path).glob("checkpoints/step_*.pth"))
    assert newest.name == f"step_{stopped_at:09d}.pth"
    assert torch.load(newest, weights_only=True)["processes"] == 2
    assert not list(only_run(tmp_path).glob("checkpoints/.*"))


@pytest.mark.slow
@pytest.mark.parametrize("view", ["plain", "training"])
def test_two_processes_killed_while_they_record_go_on_and_lose_nothing(view, tmp_path):
    settings = {
        "data.dataset": "digits", "student.model": "mlp_64", "train.precision": "no", "train.record": view,
        "train.epochs": 12, "train.batch_size": 50, "train.checkpoint_every": "0.7", "data.augment": "crop(1)",
    }  # fmt: skip
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(*launcher, "train.py", *options(**settings, output=whole), log=tmp_path / "log", **CPU)
    assert process.wait(200) == 0, (tmp_path / "log").read_text()
    for _ in range(2):
        log = tmp_path / "killed"
        process = start(*launcher, "train.py", *options(**settings, output=broken), log=log, **CPU)
        wait_for_checkpoint(broken, process, log)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.wait(60)
        only_run(broken)  # it is there, and not finished
    process = start(*launcher, "train.py", *options(**settings, output=broken), log=tmp_path / "log", **CPU)
    assert process.wait(200) == 0, (tmp_path / "log").read_text()
    files = [sorted((only_run(output) / "dynamics").iterdir()) for output in (whole, broken)]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))


def wait_for_checkpoint(output: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while not list(output.glob("*/checkpoints/step_*.pth")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


@pytest.mark.slow
def test_the_documented_launcher_does_not_start_one_process_in_silence(tmp_path):
    """Accelerate 1.15 runs one process for `--cpu --num_processes 2` unless it is given an MPI host file."""
    words = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", f"--main_process_port={free_port()}")
    settings = {
        "data.dataset": "digits", "student.model": "mlp_64", "train.steps": 2, "train.precision": "no",
        "output": tmp_path,
    }  # fmt: skip
    done = run_command("train.py", *options(**settings), launcher=words)
    if done.returncode == 0:
        assert json.loads((only_run(tmp_path) / "environment.json").read_text())["processes"] == 2
    else:
        assert "torchrun" in done.stderr
