"""Losses with parameters of their own, in whole trainings: they learn, survive a stop, and leave nothing behind.

Two processes that share one are in test_processes.py.
"""

from __future__ import annotations

from collections import Counter

import pytest
import safetensors.torch
import torch
from helpers import Recorder, StopIn, train
from torch import nn

from kdprune import registry
from kdprune.losses.fitnet import FitNet
from kdprune.training.interrupt import Interrupted

ONE_STEP = {
    "distill.loss": "kd + projected", "train.steps": 1, "train.opt": "momentum", "train.momentum": 0.0,
    "train.weight_decay": 0.0, "train.sched": "none", "train.lr": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(digits_teacher):
    return {
        "student.model": "mlp_64", "teacher.models": str(digits_teacher), "subset.keep_fraction": 0.5,
        "distill.loss": "kd + fitnet + 0.8*crd(negatives=128)", "distill.layers": [["act2", "layer2"]],
        "train.steps": 12, "train.lr": 0.02,
    }  # fmt: skip


@pytest.fixture
def projected(monkeypatch):
    """A plug-in that lets its projector be seen, as it was built and as it is: (before, after) of each run."""
    made: list[tuple[dict[str, torch.Tensor], nn.Module]] = []

    class Projected(FitNet):
        def build(self, student_features, teacher_features):
            super().build(student_features, teacher_features)
            made.append(({name: p.detach().clone() for name, p in self.named_parameters()}, self))

    monkeypatch.setitem(registry._registered["losses"], "projected", Projected)
    return made


def moves(projected, of_run: int) -> dict[str, torch.Tensor]:
    """By how much each parameter of the loss has moved in a run, which before it built one for its dry step."""
    before, loss = projected[2 * of_run + 1]
    assert before
    return {name: p.detach() - before[name] for name, p in loss.named_parameters()}


def student(run) -> torch.Tensor:
    state = safetensors.torch.load_file(run / "student.safetensors")
    return torch.cat([tensor.double().flatten() for tensor in state.values()])


def test_the_parameters_of_a_loss_are_trained_and_only_weights_decay(tmp_path, settings, projected):
    """In a step of plain gradient descent, a weight decay of w takes lr·w of each weight, and nothing of a bias."""
    for decay in (0.0, 0.25):
        train(tmp_path / str(decay), {**settings, **ONE_STEP, "train.weight_decay": decay})
    before, free, decayed = projected[1][0], moves(projected, 0), moves(projected, 1)
    assert {name.rsplit(".")[-1] for name in before} == {"weight", "bias"}
    for name, start in before.items():
        assert free[name].abs().max() > 0, name
        expected = -0.25 * start if name.endswith("weight") else torch.zeros_like(start)
        torch.testing.assert_close(decayed[name] - free[name], expected, rtol=1e-4, atol=1e-5)


def test_one_norm_is_clipped_over_the_student_and_its_loss(tmp_path, settings, projected):
    """One step with lr 1 moves all that is trained by the gradient."""
    _, start = train(tmp_path / "start", {**settings, **ONE_STEP, "train.lr": 1e-30})
    for limit in (1e-3, 1e6):
        _, run = train(tmp_path / str(limit), {**settings, **ONE_STEP, "train.clip_grad": limit})
        of_loss = torch.cat([move.double().flatten() for move in moves(projected, -1).values()])
        norm = torch.cat([of_loss, student(run) - student(start)]).norm().item()
        if limit < 1:
            assert norm == pytest.approx(limit, rel=1e-2)
        else:
            assert 1e-2 < norm < limit


def test_a_stopped_run_goes_on_with_the_parameters_and_the_queue(tmp_path, settings):
    _, whole = train(tmp_path / "whole", settings)
    with pytest.raises(Interrupted, match="stopped at step 7 of 12"):
        train(tmp_path / "broken", settings, StopIn(7))
    summary, broken = train(tmp_path / "broken", settings)
    assert (whole / "student.safetensors").read_bytes() == (broken / "student.safetensors").read_bytes()
    asked = summary["cost"]["student_training"]["teacher_forward_samples"]
    assert summary["images_seen"] <= asked <= summary["images_seen"] + 8  # the first look at four samples, twice


@pytest.mark.parametrize("loss", ["attention_transfer", "fitnet", "review", "crd", "rkd", "similarity_preserving"])
def test_a_loss_between_the_last_stages_is_learned(tmp_path, digits_teacher, loss):
    """Of one batch, seen again and again; layers that are not named are the last stages of both networks."""
    settings = {
        "student.model": "cifar_resnet8", "teacher.models": str(digits_teacher), "distill.loss": loss,
        "distill.alpha": 1, "data.augment": "none", "subset.keep_fraction": 0.05, "train.batch_size": 67,
        "train.steps": 8, "train.opt": "adamw", "train.lr": 3e-3, "train.sched": "none",
    }  # fmt: skip
    recorder = Recorder()
    summary, _ = train(tmp_path, settings, recorder)
    losses = [batch["kd_loss"] for batch in recorder.seen]
    assert losses[-1] < 0.9 * losses[0]
    assert summary["teacher"][0]["engine"] == "plain"  # folded, it would have no layers to look at


def test_a_search_leaves_no_hooks_on_the_teacher(tmp_path, settings, monkeypatch):
    handles, original = [], nn.Module.register_forward_hook

    def counted(module, *args, **how):
        handles.append((module, original(module, *args, **how)))
        return handles[-1][1]

    monkeypatch.setattr(nn.Module, "register_forward_hook", counted)
    train(tmp_path, {**settings, "distill.alpha": "search([0.2, 0.8])"})
    hooked = Counter(id(module) for module, _ in handles)
    assert max(hooked.values()) == 3  # the teacher, by two candidates and by the run
    assert all(len(module._forward_hooks) <= 1 for module, _ in handles)
