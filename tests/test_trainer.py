"""Whole trainings in this process: a tiny network, a few steps of the digits."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from helpers import StopIn, metrics, timeless, train
from PIL import Image
from timm.utils import ModelEmaV3

from kdprune.artefact import LOCK
from kdprune.config import config_hash
from kdprune.data.sources import open_source
from kdprune.pipeline.evaluate import evaluate_run
from kdprune.runs.reading import read_config
from kdprune.teachers.frozen import can_compile
from kdprune.training.interrupt import Interrupted
from kdprune.training.observers import Metrics, Observer
from kdprune.training.step import MEASURED

SUMMARY = {
    "test_top1", "test_loss", "keep_fraction", "kept", "total", "alpha", "temperature", "teacher", "student", "seed",
    "epochs", "steps", "images_seen", "train_seconds", "images_per_second", "cost", "config_hash", "subset_hash",
    "dataset_fingerprint", "device", "precision",
}  # fmt: skip


def weights(run) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "student.safetensors")


def content(run) -> bytes:
    return (run / "student.safetensors").read_bytes()


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=atol) for name in a)


@pytest.fixture(scope="module")
def kd_run(tmp_path_factory, digits_teacher):
    """Two arms, with a teacher and without, on half of the digits."""
    return train(
        tmp_path_factory.mktemp("runs"),
        {
            "baseline": True, "subset.keep_fraction": 0.5, "teacher.models": str(digits_teacher),
            "distill.alpha": "linear(1.0, 0.5)",
        },
    )  # fmt: skip


# --- the run directory ------------------------------------------------------------------------------------------------


def test_a_run_directory_holds_what_was_promised(kd_run):
    summary, run = kd_run
    assert {file.name for file in run.iterdir() if file.is_file()} == {
        "artefact.json", ".lock", "config.yaml", "environment.json", "metrics.csv", "subset.json",
        "student.safetensors", "summary.json",
    }  # fmt: skip
    assert not list(run.glob("checkpoints/*"))
    assert json.loads((run / "summary.json").read_text()) == summary
    assert config_hash(read_config(run)) == summary["config_hash"]
    assert {"python", "platform", "device", "processes", "packages"} <= json.loads(
        (run / "environment.json").read_text()
    ).keys()


def test_the_summary_says_what_was_done(kd_run, digits_teacher):
    summary, run = kd_run
    subset = json.loads((run / "subset.json").read_text())
    assert summary.keys() >= SUMMARY
    assert (summary["kept"], summary["total"], summary["steps"]) == (674, 1347, 22)
    assert summary["keep_fraction"] == 674 / 1347 == subset["keep_fraction"]
    assert len(subset["ids"]) == 674
    assert (summary["subset_hash"], summary["dataset_fingerprint"]) == (subset["hash"], subset["dataset_fingerprint"])
    assert summary["images_seen"] == 22 * 64
    assert summary["epochs"] == pytest.approx(22 * 64 / 674)
    assert summary["alpha"] == pytest.approx(1 - 0.5 * 674 / 1347)
    assert (summary["temperature"], summary["precision"], summary["seed"]) == (4.0, "no", 0)
    (teacher,) = summary["teacher"]
    taught = json.loads((digits_teacher / "summary.json").read_text())
    assert teacher["name"] == "cifar_resnet8"
    assert teacher["parameters"] == taught["student"]["parameters"]
    assert teacher["test_top1"] == taught["test_top1"] > 0.5
    assert summary["student"]["name"] == "mlp_64"
    assert summary["test_top1"] == float(metrics(run)[-1]["test_top1"])
    for stage in ("observation", "teacher_training", "target_caching", "student_training"):
        assert {"seconds", "forward_samples", "backward_samples"} <= summary["cost"][stage].keys()
    assert summary["cost"]["student_training"]["backward_samples"] == summary["images_seen"]


def test_the_student_loads_into_timms_model_and_scores_the_same(kd_run):
    summary, run = kd_run
    model = timm.create_model("mlp_64", num_classes=10, in_chans=1, img_size=8)
    model.load_state_dict(weights(run), strict=True)
    assert sum(p.numel() for p in model.parameters()) == summary["student"]["parameters"]
    again = evaluate_run(run).result
    assert again["top1"] == summary["test_top1"]
    assert again["loss"] == pytest.approx(summary["test_loss"])


def test_the_arm_without_a_teacher_differs_in_nothing_else(kd_run):
    summary, run = kd_run
    (other,) = (path for path in run.parent.glob("*/summary.json") if path.parent != run)
    plain = json.loads(other.read_text())
    assert (plain["teacher"], plain["temperature"], plain["alpha"]) == ([], None, 0)
    for name in ("kept", "steps", "seed", "subset_hash", "dataset_fingerprint", "student"):
        assert plain[name] == summary[name]
    assert "kd_loss" not in metrics(other.parent)[0]


def test_a_row_of_metrics_for_each_epoch(tmp_path):
    settings = {"train.steps": None, "train.epochs": 5, "train.eval_every": 2, "subset.keep_fraction": 0.3}
    summary, run = train(tmp_path, settings)
    rows = metrics(run)
    kept = summary["kept"]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [int(row["step"]) for row in rows[:-1]] == [math.ceil(e * kept / 64) for e in range(1, 5)]
    assert int(rows[-1]["step"]) == summary["steps"]
    assert [bool(row["test_top1"]) for row in rows] == [False, True, False, True, True]
    assert all(0 <= float(row["train_top1"]) <= 1 for row in rows)


def test_epochs_that_end_in_one_step_share_a_row_a_line_and_a_moment(tmp_path, caplog):
    """Of 27 samples, a batch of 128 holds four epochs and more."""
    settings = {
        "subset.keep_fraction": 0.02, "train.batch_size": 128, "train.steps": None, "train.epochs": 30,
        "train.eval_every": 7, "train.save_epochs": [1, 6, 9, 29], "train.save_steps": [1, 2],
    }  # fmt: skip
    with caplog.at_level("INFO", "kdprune"):
        summary, run = train(tmp_path, settings)
    rows = metrics(run)
    assert [int(row["epoch"]) for row in rows] == [4, 9, 14, 18, 23, 29], "⌊128·step/27⌋, and at the end all begun"
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["samples"] for row in rows} == {"128"}
    assert [bool(row["test_top1"]) for row in rows] == [False, True, True, False, True, True], "at 7, 14, 21 and 28"
    assert summary["epochs"] == pytest.approx(6 * 128 / 27)
    said = [message for message in caplog.messages if "  epoch " in message]
    assert [message.split("  ")[1] for message in said] == [f"epoch {row['epoch']}/29" for row in rows]

    def kept(name):
        return safetensors.torch.load_file(run / "checkpoints" / f"{name}.safetensors")

    for epoch, expected in ((1, kept("step_000000001")), (6, kept("step_000000002")), (9, kept("step_000000002")),
                            (29, weights(run))):  # fmt: skip
        assert all(torch.equal(value, expected[name]) for name, value in kept(f"epoch_{epoch:04d}").items())


def test_an_epoch_that_is_begun_in_the_last_step_ends_with_it(tmp_path):
    """22 steps of 64 are 1,408 samples, and an epoch holds 1,347."""
    _, run = train(tmp_path, {"train.save_epochs": [1, 2]})
    assert [row["epoch"] for row in metrics(run)] == ["2"]
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == [
        "epoch_0001.safetensors", "epoch_0002.safetensors",
    ]  # fmt: skip


def test_what_a_row_says_of_a_teacher(kd_run):
    for row in metrics(kd_run[1]):
        assert 0 <= float(row["agreement"]) <= 1
        assert 0 <= float(row["teacher_entropy"]) <= math.log(10)
        alpha = float(row["alpha"])
        mixture = (1 - alpha) * float(row["task_loss"]) + alpha * float(row["kd_loss"])
        assert float(row["train_loss"]) == pytest.approx(mixture, rel=1e-4)


def test_a_finished_run_trains_nothing(kd_run):
    summary, run = kd_run
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != LOCK}
    config = read_config(run)
    again, same = train(
        run.parent,
        {"baseline": True, "subset.keep_fraction": 0.5, "teacher.models": config.teacher.models,
         "distill.alpha": "linear(1.0, 0.5)", "data.workers": 3, "train.checkpoint_keep": 7},
    )  # fmt: skip
    assert again == summary
    assert same == run
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != LOCK} == before


def test_a_name_that_is_taken_by_other_settings_is_refused(tmp_path):
    train(tmp_path, {"name": "mine", "train.steps": 2})
    before = content(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"train.lr: 0.05 there, 0.1 asked for.*choose another --name"):
        train(tmp_path, {"name": "mine", "train.steps": 2, "train.lr": 0.1})
    assert content(tmp_path / "mine") == before


def test_equal_settings_give_equal_bits_and_other_seeds_do_not(tmp_path):
    settings = {"train.steps": 5, "student.drop_rate": 0.2, "data.augment": "crop(1)+cutmix"}
    first, second = (content(train(tmp_path / folder, settings)[1]) for folder in "ab")
    assert first == second
    assert content(train(tmp_path / "c", {**settings, "seed": 1})[1]) != first


# --- the optimisation -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    settings = {"name": "wild", "train.lr": 1e15, "train.sched": "none", "train.checkpoint_every": "0.04"}
    with pytest.raises(FloatingPointError) as caught:
        train(tmp_path, settings)
    message = str(caught.value)
    for part in ("not finite at step", "of 22", "lr 1e+15", "--train.lr", "--train.warmup_epochs", "--train.clip_grad"):
        assert part in message
    kept = sorted((tmp_path / "wild" / "checkpoints").glob("step_*.pth"))
    assert str(kept[-1]) in message
    state = torch.load(kept[-1], weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["parts"]["student"].values())
    assert not (tmp_path / "wild" / "summary.json").exists()


@pytest.mark.parametrize("warmup", [True, False])
def test_the_moving_average_is_what_comes_out(tmp_path, warmup):
    """Of the student after each step, which snapshots of a run without an average hold; beside it runs timm's class."""
    steps = list(range(1, 7))
    _, run = train(tmp_path / "ema", {"train.ema": 0.6, "train.ema_warmup": warmup, "train.steps": 6})
    _, without = train(tmp_path / "none", {"train.steps": 6, "train.save_steps": steps})
    files = [without / "checkpoints" / f"step_{step:09d}.safetensors" for step in steps]
    states = [safetensors.torch.load_file(file) for file in files]
    assert close(states[-1], weights(without), 0)
    average = states[0]  # timm's first update copies
    for step, state in zip(steps[1:], states[1:], strict=True):
        decay = min(0.6, 1 - step ** (-2 / 3)) if warmup else 0.6
        average = {name: decay * value + (1 - decay) * state[name] for name, value in average.items()}
    assert close(weights(run), average, 1e-5)
    student = timm.create_model("mlp_64", num_classes=10, in_chans=1, img_size=8)
    oracle = ModelEmaV3(student, decay=0.6, use_warmup=warmup)
    for step, state in zip(steps, states, strict=True):
        student.load_state_dict(state)
        oracle.update(student, step=step)
    assert close(weights(run), oracle.module.state_dict(), 0)


def test_an_average_of_a_short_run_is_as_good_as_its_student(tmp_path):
    """Without a warm-up, 0.999 of 63 steps keeps 94% of the first weights, and is worth nothing."""
    short = {"student.model": "cifar_resnet8", "train.steps": 63, "train.lr": 0.1}
    student, _ = train(tmp_path, short)
    averaged, _ = train(tmp_path, {**short, "train.ema": 0.999})
    old, _ = train(tmp_path, {**short, "train.ema": 0.999, "train.ema_warmup": False})
    assert averaged["test_top1"] > student["test_top1"] - 0.03
    assert old["test_top1"] < student["test_top1"] - 0.3


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"train.ema": 0.999, "train.ema_warmup": False}, 0.999**21),
        ({"train.ema": 0.8, "train.ema_warmup": False}, None),  # 0.8**21 is less than a hundredth
        ({"train.ema": 0.999}, None),
        ({"train.ema": 0.999, "train.steps": 3}, (1 - 2 ** (-2 / 3)) * (1 - 3 ** (-2 / 3))),
    ],
)
def test_an_average_that_is_mostly_old_is_warned_of(tmp_path, caplog, settings, share):
    train(tmp_path, settings)
    said = [record.getMessage() for record in caplog.records if "--train.ema:" in record.getMessage()]
    assert len(said) == (share is not None)
    if share is not None:
        assert f"{100 * share:.1f}%" in said[0]
        assert ("--train.ema_warmup true" in said[0]) == (settings.get("train.ema_warmup") is False)


def test_accumulated_parts_are_one_batch(tmp_path, digits_teacher):
    settings = {"teacher.models": str(digits_teacher), "data.augment": "crop(1)+mixup(0.4)", "train.smoothing": 0.1}
    _, whole = train(tmp_path / "whole", settings)
    _, parts = train(tmp_path / "parts", {**settings, "train.grad_accum": 4})
    assert close(weights(whole), weights(parts), 1e-5)
    for a, b in zip(timeless(whole), timeless(parts), strict=True):
        assert {name: float(v) for name, v in a.items()} == pytest.approx({n: float(v) for n, v in b.items()}, rel=1e-3)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--train.batch_size: 64 given.*must be a multiple of 3"):
        train(tmp_path, {"train.grad_accum": 3})


def test_gradients_are_clipped_to_their_limit(tmp_path):
    """One step of plain gradient descent with lr 1 moves the weights by the gradient."""
    one = {"train.steps": 1, "train.opt": "momentum", "train.momentum": 0.0, "train.weight_decay": 0.0,
           "train.sched": "none"}  # fmt: skip
    _, start = train(tmp_path / "start", {**one, "train.lr": 1e-30})

    def moved(limit) -> float:
        _, run = train(tmp_path / str(limit), {**one, "train.lr": 1.0, "train.clip_grad": limit})
        return math.sqrt(sum((weights(run)[n] - v).double().square().sum().item() for n, v in weights(start).items()))

    assert moved(1e-3) == pytest.approx(1e-3, rel=1e-2)
    assert moved(1e6) == pytest.approx(moved(None), rel=1e-6)


def test_the_rate_of_a_row_is_that_of_the_last_step_of_its_epoch(tmp_path):
    summary, run = train(tmp_path, {"train.steps": None, "train.epochs": 4, "train.sched": "cosine"})
    for row in metrics(run):
        progress = (int(row["step"]) - 1) / summary["steps"]
        assert float(row["lr"]) == pytest.approx(0.025 * (1 + math.cos(math.pi * progress)), rel=1e-4)


def test_alpha_follows_its_schedule(tmp_path, digits_teacher):
    settings = {"teacher.models": str(digits_teacher), "distill.alpha": "constant(0.8) * late(0.6)"}
    _, run = train(tmp_path, {**settings, "train.steps": None, "train.epochs": 2})
    assert [float(row["alpha"]) for row in metrics(run)] == pytest.approx([0.8, 0.0])


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="there is no C++ compiler")
def test_a_compiled_student_and_teacher_train_alike(tmp_path, digits_teacher):
    """The same weights but for rounding, under the same names: no `_orig_mod.`, and timm loads them."""
    settings = {"teacher.models": str(digits_teacher), "train.steps": 3}
    plain, plain_run = train(tmp_path / "plain", settings)
    compiled, compiled_run = train(tmp_path / "compiled", {**settings, "train.compile": True})
    assert compiled["teacher"][0]["engine"] == "folded+compiled"
    assert compiled["test_loss"] == pytest.approx(plain["test_loss"], rel=1e-3)
    ours, expected = weights(compiled_run), weights(plain_run)
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor.float(), expected[name].float(), atol=1e-3), name


def test_a_subset_smaller_than_a_batch(tmp_path):
    summary, _ = train(tmp_path, {"subset.keep_fraction": 0.01, "train.steps": 3})
    assert summary["kept"] == 13
    assert summary["images_seen"] == 3 * 64


def test_both_budgets(tmp_path):
    settings = {"subset.keep_fraction": 0.2, "train.steps": None, "train.epochs": 1}
    subset, _ = train(tmp_path, settings)
    full, _ = train(tmp_path, {**settings, "train.budget": "full"})
    assert subset["steps"] == subset["kept"] // 64
    assert full["steps"] == full["total"] // 64
    assert full["epochs"] == pytest.approx(full["steps"] * 64 / full["kept"])


def test_trackers_get_the_metrics(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, run = train(tmp_path, {"log_with": "tensorboard", "train.steps": 2})
    files = [events.EventAccumulator(str(file)).Reload() for file in run.rglob("events.out.tfevents*")]
    (logged,) = (file for file in files if "train_loss" in file.Tags()["scalars"])  # settings have a file of their own
    (row,) = metrics(run)
    for name in ("train_loss", "test_top1", "lr"):
        (event,) = logged.Scalars(name)
        assert event.step == 2
        assert event.value == pytest.approx(float(row[name]), rel=1e-5)


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_a_teacher_that_was_trained_here_is_met_again(tmp_path):
    settings = {"teacher.models": "cifar_resnet8", "teacher.train.epochs": 0.5, "train.steps": 3, "seeds.teacher": 0}
    first, _ = train(tmp_path, settings)
    (taught,) = (tmp_path / "teachers").iterdir()
    before = {file: file.stat().st_mtime_ns for file in taught.rglob("*")}
    second, _ = train(tmp_path, {**settings, "seed": 1, "subset.keep_fraction": 0.4, "student.drop_rate": 0.1})
    assert [path.name for path in (tmp_path / "teachers").iterdir()] == [taught.name]
    assert {file: file.stat().st_mtime_ns for file in taught.rglob("*")} == before
    assert first["teacher"][0]["weights_hash"] == second["teacher"][0]["weights_hash"]
    assert json.loads((taught / "summary.json").read_text())["keep_fraction"] == 1
    assert first["cost"]["teacher_training"]["backward_samples"] > 0


def test_teachers_of_several_kinds_and_their_snapshots(tmp_path, digits_teacher):
    base = {"train.steps": 4, "distill.alpha": 1.0}
    last = train(tmp_path, {**base, "teacher.models": str(digits_teacher)})[0]
    early = train(tmp_path, {**base, "teacher.models": f"{digits_teacher}@1"})[0]
    same = train(tmp_path, {**base, "teacher.models": f"{digits_teacher}@2"})[0]
    both = train(tmp_path, {**base, "teacher.models": [str(digits_teacher), f"{digits_teacher}@1"]})[0]
    hashes = [[teacher["weights_hash"] for teacher in summary["teacher"]] for summary in (last, early, same, both)]
    assert hashes[0] == hashes[2] != hashes[1]
    assert hashes[3] == hashes[0] + hashes[1]


def test_weights_of_teachers_decide_who_is_listened_to(tmp_path, digits_teacher):
    base = {"train.steps": 4, "distill.alpha": 1.0}
    pair = [str(digits_teacher), f"{digits_teacher}@1"]
    alone = weights(train(tmp_path, {**base, "teacher.models": pair[0]})[1])
    deaf = weights(train(tmp_path, {**base, "teacher.models": pair, "teacher.weights": [2.0, 0.0]})[1])
    other = weights(train(tmp_path, {**base, "teacher.models": pair, "teacher.weights": [0.0, 1.0]})[1])
    assert close(alone, deaf, 1e-5)
    assert not close(alone, other, 1e-4)


def test_snapshots_are_kept_at_the_epochs_asked_for(digits_teacher):
    names = sorted(file.name for file in (digits_teacher / "checkpoints").iterdir())
    assert names == ["epoch_0001.safetensors", "epoch_0002.safetensors"]
    final = safetensors.torch.load_file(digits_teacher / "checkpoints" / "epoch_0002.safetensors")
    assert close(final, weights(digits_teacher), 0)


def test_a_snapshot_that_was_not_kept_is_refused_with_those_that_were(tmp_path, digits_teacher):
    with pytest.raises(ValueError, match=r"no student of .7. \(kept: 1, 2\)"):
        train(tmp_path, {"teacher.models": f"{digits_teacher}@7"})


# --- a transfer set without labels ------------------------------------------------------------------------------------


@pytest.fixture
def unlabelled(tmp_path):
    """Digits as loose files to train on, and in class folders to test on."""
    folder = tmp_path / "images"
    source = open_source("digits", "train")
    for i in range(180):
        kind = folder / ("train" if i < 80 else f"test/{source.labels[i]}")
        kind.mkdir(parents=True, exist_ok=True)
        source[i].save(kind / f"{i}.png")
    assert len(list((folder / "test").iterdir())) == 10
    return folder


def test_distillation_from_images_without_labels(tmp_path, unlabelled, digits_teacher):
    settings = {"data.dataset": str(unlabelled), "train.steps": 100, "teacher.models": str(digits_teacher)}
    for alpha in (0.9, "linear(1.0, 0.5)", "1 * late(0.5)", "1 * warmup(0.1)"):
        with pytest.raises(ValueError, match=r"has no labels: --distill.alpha is .*, allowed is 1, without a schedule"):
            train(tmp_path, {**settings, "distill.alpha": alpha})
    for models in ([], "cifar_resnet8"):
        with pytest.raises(ValueError, match=r"has no labels, so no .* name a teacher that has weights"):
            train(tmp_path, {**settings, "teacher.models": models, "distill.alpha": 1})
    with pytest.raises(ValueError, match=r"has no labels: --distill.alpha search judges by them"):
        train(tmp_path, {**settings, "distill.alpha": "search([1.0], [2, 4])"})
    with pytest.raises(ValueError, match=r"has no labels: --teacher.by_correctness needs them"):
        train(tmp_path, {**settings, "teacher.models": [str(digits_teacher)] * 2, "teacher.by_correctness": True})
    summary, run = train(tmp_path, {**settings, "distill.alpha": 1, "baseline": True})
    assert summary["test_top1"] > 0.2
    assert not list(tmp_path.glob("*-plain-*"))
    assert {float(row["task_loss"]) for row in metrics(run)} == {0.0}


def test_without_labels_and_without_a_held_out_part(tmp_path, unlabelled, digits_teacher):
    settings = {"data.dataset": str(unlabelled / "train"), "distill.alpha": 1, "train.steps": 3}
    summary, _ = train(tmp_path, {**settings, "teacher.models": str(digits_teacher)})
    assert summary["test_top1"] is None


# --- going on ---------------------------------------------------------------------------------------------------------


def interrupted(tmp_path, settings, step: int):
    """Train until a SIGTERM comes in a step; the folder of checkpoints."""
    with pytest.raises(Interrupted, match=rf"SIGTERM.* step {step} of 22"):
        train(tmp_path, settings, StopIn(step))
    return tmp_path / "mine" / "checkpoints"


@pytest.fixture(scope="module")
def resumable(digits_teacher):
    return {
        "name": "mine", "teacher.models": str(digits_teacher), "student.drop_rate": 0.3, "train.ema": 0.9,
        "train.checkpoint_every": "0.2", "subset.keep_fraction": 0.5, "data.augment": "crop(1)+mixup(0.3)",
    }  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, resumable):
    return train(tmp_path_factory.mktemp("whole"), resumable)[1]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, resumable):
    """The output of a run that was stopped in step 13, with snapshots of its first epoch."""
    output = tmp_path_factory.mktemp("stopped")
    folder = interrupted(output, {**resumable, "train.save_epochs": [1]}, 13)
    assert {file.name for file in folder.iterdir()} == {
        "step_000000012.pth", "step_000000013.pth", "epoch_0001.safetensors",
    }  # fmt: skip
    return output


@pytest.mark.parametrize(("damage", "step"), [("none", 13), ("newest", 12), ("all", 0), ("a bit", 12)])
def test_a_run_goes_on_to_the_same_bits_even_from_damaged_checkpoints(
    tmp_path, resumable, stopped, uninterrupted, damage, step
):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "mine" / "checkpoints"
    snapshot = (folder / "epoch_0001.safetensors").read_bytes()
    files = sorted(folder.glob("step_*.pth"))
    for file in {"none": [], "newest": files[-1:], "all": files, "a bit": files[-1:]}[damage]:
        stored = bytearray(file.read_bytes())
        if damage == "a bit":
            stored[len(stored) // 2] ^= 4
        file.write_bytes(stored if damage == "a bit" else stored[: len(stored) // 2])
    (folder / ".step_000000014.pth.ab12.tmp").write_bytes(b"half")  # what a `kill -9` inside a checkpoint leaves
    steps = StopIn()
    _, run = train(tmp_path, {**resumable, "train.save_epochs": [1]}, steps)
    assert steps.done == 22 - step
    assert content(run) == content(uninterrupted)
    assert timeless(run) == timeless(uninterrupted)
    assert [file.name for file in folder.iterdir()] == ["epoch_0001.safetensors"]
    assert (folder / "epoch_0001.safetensors").read_bytes() == snapshot


def test_a_stop_at_the_last_step_of_an_epoch_writes_its_row_once(tmp_path, resumable, uninterrupted):
    interrupted(tmp_path, resumable, int(metrics(uninterrupted)[0]["step"]))
    _, run = train(tmp_path, resumable)
    assert timeless(run) == timeless(uninterrupted)
    assert content(run) == content(uninterrupted)


def test_a_stop_in_the_last_step_of_all_finishes_the_run(tmp_path, resumable, uninterrupted):
    with contextlib.suppress(Interrupted):
        train(tmp_path, resumable, StopIn(22))
    _, run = train(tmp_path, resumable)
    assert content(run) == content(uninterrupted)
    assert timeless(run) == timeless(uninterrupted)


def test_images_of_no_store_train_the_same_from_any_number_of_workers(tmp_path):
    folder = tmp_path / "images"
    random = np.random.default_rng(0)
    for i in range(24):
        place = folder / ("train" if i < 18 else "test") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        height, width = random.integers(10, 30, 2)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(place / f"{i}.png")
    settings = {
        "data.dataset": str(folder), "data.memory_gb": 0.0, "data.image_size": 12, "data.augment": "rrc+flip",
        "train.steps": 4, "train.batch_size": 8,
    }  # fmt: skip
    bits = {content(train(tmp_path / str(n), {**settings, "data.workers": n})[1]) for n in (0, 2)}
    assert len(bits) == 1


class Remembers(Observer):
    """Has a state of a kind."""

    def __init__(self, value: object) -> None:
        self.value = value

    def state_dict(self):
        return {"value": self.value}


def test_a_state_that_no_checkpoint_can_give_back_is_refused_when_the_first_one_is_written(tmp_path):
    """Else every checkpoint would be passed over as damaged, and the run would begin anew."""
    settings = {"train.steps": 6, "train.checkpoint_every": "0.1"}
    with pytest.raises(ValueError, match=r"Remembers \d.*allowed are tensors"):
        train(tmp_path / "array", settings, Remembers(np.arange(3)))
    assert not list(tmp_path.rglob("step_*.pth"))
    train(tmp_path / "plain", settings, Remembers([1, "two", None, {"three": torch.arange(3)}]))


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_an_image_of_a_subset_file_that_cannot_be_read_is_dropped(tmp_path, memory_gb):
    for i in range(240):
        folder = tmp_path / "photos" / ("train" if i % 2 else "test") / f"class{i // 2 % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 255 - i, 0)).save(folder / f"{i:03}.bmp")
    settings = {
        "data.dataset": str(tmp_path / "photos"), "data.bad_images": "drop", "data.memory_gb": memory_gb,
        "data.image_size": 8, "data.workers": 0, "train.steps": 20, "train.batch_size": 8,
    }  # fmt: skip
    summary, run = train(tmp_path / "all", settings)
    source = open_source(str(tmp_path / "photos"), "train", tmp_path)
    bad = next(i for i in range(len(source)) if i not in source.spread(64))  # the fingerprint sees others
    with open(source.describe(bad), "r+b") as file:
        file.write(bytes(54))
    again, other = train(tmp_path / "runs", {**settings, "subset.file": str(run / "subset.json")})
    assert (summary["kept"], again["kept"], again["dropped"]) == (120, 119, 1)
    assert bad not in json.loads((other / "subset.json").read_text())["ids"]


@pytest.mark.parametrize(("processes", "expected"), [(2, [1.0, 2.0]), (1, [3.0]), (3, [3.0, 0.0, 0.0])])
def test_sums_of_an_epoch_go_back_to_the_processes_that_made_them(processes, expected):
    """Where as many go on; else the first one has them all."""
    stored = {"sums": torch.tensor([[1.0], [2.0]]).expand(2, len(MEASURED))}
    for rank, value in enumerate(expected):
        accelerator = SimpleNamespace(
            device=torch.device("cpu"), num_processes=processes, process_index=rank, is_main_process=rank == 0
        )
        made = Metrics(accelerator, with_teacher=False)
        made.load_state_dict(stored)
        assert made.sums.tolist() == [value] * len(MEASURED)
