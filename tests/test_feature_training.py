"""Losses with parameters of their own, in whole trainings: they learn, survive a stop, and share two processes."""

from __future__ import annotations

import copy
import os
import signal

import pytest
import torch
from helpers import command, metrics, only_run, options, train
from test_processes import CPU, launcher

from kdprune.training.interrupt import Interrupted
from kdprune.training.step import DistillStep
from kdprune.training.trainer import Trainer

PROJECTED = "kd + fitnet + 0.8*crd(negatives=128)"


@pytest.fixture(scope="module")
def settings(digits_teacher):
    return {
        "student.model": "mlp_64", "teacher.models": str(digits_teacher), "distill.loss": PROJECTED,
        "distill.layers": [["act2", "layer2"]], "subset.keep_fraction": 0.5, "train.steps": 12, "train.lr": 0.02,
    }  # fmt: skip


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer of this process with its loss as it was before the first step."""
    made, original = [], Trainer.fit

    def watched(self):
        made.append((self, copy.deepcopy(self.task.distillation.loss)))
        return original(self)

    monkeypatch.setattr(Trainer, "fit", watched)
    return made


def test_the_parameters_of_a_loss_are_trained_and_only_weights_decay(tmp_path, settings, trainers):
    train(tmp_path, settings)
    ((trainer, before),) = trainers
    after = dict(trainer.task.distillation.loss.named_parameters())
    assert len(after) == 6  # two heads and a projector, weights and biases
    for name, parameter in before.named_parameters():
        assert not torch.equal(parameter, after[name]), name
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in after.items():
        assert (decays[id(parameter)] > 0) == name.endswith("weight"), name


@pytest.mark.parametrize("limit", [1e-4, None])
def test_the_gradients_of_a_loss_are_clipped_too(tmp_path, settings, trainers, limit):
    plain = {"train.steps": 1, "train.opt": "momentum", "train.momentum": 0.0, "train.weight_decay": 0.0}
    train(tmp_path, {**settings, **plain, "train.sched": "none", "train.lr": 1.0, "train.clip_grad": limit})
    ((trainer, before),) = trainers
    after = dict(trainer.task.distillation.loss.named_parameters())
    moved = torch.stack([(after[name] - p).norm() for name, p in before.named_parameters()]).norm()
    assert (moved < 1.1e-4) == (limit is not None)


def test_a_stopped_run_goes_on_with_the_parameters_and_the_queue(tmp_path, settings, monkeypatch):
    _, whole = train(tmp_path / "whole", settings)
    done, original = [], DistillStep.__call__

    def stopping(self, batch, alpha):
        done.append(1)
        if len(done) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, alpha)

    monkeypatch.setattr(DistillStep, "__call__", stopping)
    with pytest.raises(Interrupted, match="stopped at step 7 of 12"):
        train(tmp_path / "broken", settings)
    summary, broken = train(tmp_path / "broken", settings)
    assert (whole / "student.safetensors").read_bytes() == (broken / "student.safetensors").read_bytes()
    asked = summary["cost"]["student_training"]["teacher_forward_samples"]
    assert summary["images_seen"] <= asked <= summary["images_seen"] + 8  # the first look at four samples, twice


def test_two_processes_do_what_one_does(tmp_path, settings):
    _, alone = train(tmp_path / "one", settings)
    words = options(output=tmp_path / "two", data__augment="crop(1)", train__batch_size=64, train__precision="no")
    done = command("train.py", *words, *options(**settings), launcher=launcher(), **CPU)
    assert done.returncode == 0, done.stderr
    for row, other in zip(metrics(alone), metrics(only_run(tmp_path / "two")), strict=True):
        for name in ("kd_loss", "test_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3), name


def test_a_search_leaves_no_hooks_on_the_teacher(tmp_path, settings, trainers):
    train(tmp_path, {**settings, "distill.alpha": "search([0.2, 0.5, 0.8])"})
    assert len(trainers) == 6  # five candidates and the run
    (teacher,) = trainers[-1][0].task.distillation.targets.teachers
    assert sum(len(module._forward_hooks) for module in teacher.engine.network.modules()) == 1
