"""Weights that are no numbers any more are said in words, wherever they are met, and never written."""

from __future__ import annotations

import io

import pytest
import torch
from helpers import said_by, train

import kdprune
from kdprune.models.build import load_model, save_model
from kdprune.training.observers import Observer
from kdprune.training.trainer import Trainer

FEW = {"train.steps": 5}


class Diverge(Observer):
    """Makes a weight infinite after a step, as a step that was too long does."""

    def __init__(self, step: int, models: list[torch.nn.Module]) -> None:
        self.when, self.models = step, models

    def step(self, step: int) -> None:
        if step == self.when:
            next(self.models[0].parameters()).data[0, 0] = torch.inf


@pytest.fixture
def student(monkeypatch):
    """The model that is trained, alone in a list once training has begun."""
    models: list[torch.nn.Module] = []
    prepare = Trainer._prepare

    def remembering(self):
        prepare(self)
        models[:] = [self.task.student.model]

    monkeypatch.setattr(Trainer, "_prepare", remembering)
    return models


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run whose weights hold a NaN, in a file whose hash is right."""
    _, run = train(tmp_path_factory.mktemp("broken"), {**FEW, "name": "mine"})
    built = load_model(run / "student.safetensors")
    next(built.model.parameters()).data[0, 0] = torch.nan
    save_model(run / "student.safetensors", built)
    return run


def test_a_rate_that_is_far_too_large(tmp_path):
    with pytest.raises(FloatingPointError, match=r"not finite .*--train\.lr"):
        train(tmp_path, {**FEW, "train.lr": 1000})
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("held_out", [True, False])
def test_the_last_step_of_all_diverges(tmp_path, student, held_out, monkeypatch):
    """No loss tells it any more."""
    if not held_out:
        monkeypatch.setattr("kdprune.pipeline.student._evaluations", lambda *_: [])
    with pytest.raises(FloatingPointError, match=r"weights are not finite after step 5 of 5 .*--train\.lr"):
        train(tmp_path, FEW, Diverge(5, student))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_no_checkpoint_and_no_snapshot_is_written_of_weights_that_diverged(tmp_path, student):
    settings = {"train.steps": 60, "train.batch_size": 8, "train.checkpoint_every": "0.06"}  # every tenth step
    with pytest.raises(FloatingPointError, match=r"weights are not finite after step 20 .*step_000000010\.pth"):
        train(tmp_path, settings, Diverge(20, student))
    assert [path.name for path in tmp_path.rglob("*.pth")] == ["step_000000010.pth"]
    with pytest.raises(FloatingPointError, match=r"step_000000020\.safetensors is not written"):
        train(tmp_path / "b", {**settings, "train.save_steps": [20]}, Diverge(19, student))


@pytest.mark.parametrize(
    "settings",
    [
        {"teacher.models": "RUN"},
        {"student.checkpoint": "FILE"},
        {"teacher.models": "mlp_64", "teacher.checkpoints": ["FILE"]},
    ],
)
def test_a_file_of_a_training_that_diverged_is_named_before_anything_is_done(tmp_path, broken, settings):
    file = str(broken / "student.safetensors")
    names = {"RUN": str(broken), "FILE": file}
    given = {key: [file] if isinstance(name, list) else names.get(name, name) for key, name in settings.items()}
    with pytest.raises(ValueError, match=r"student\.safetensors: not finite .* in 1 of .* tensors \("):
        train(tmp_path, {**FEW, **given})
    assert not list(tmp_path.rglob("*.csv"))


def test_a_run_whose_weights_are_no_numbers_is_not_evaluated(broken):
    status, _, complaints = said_by(["evaluate", broken])
    assert status == 2
    assert "Traceback" not in complaints


def test_a_module_with_such_weights(tmp_path):
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    teacher[1].bias.data[3] = torch.nan
    settings = {"output": str(tmp_path), "train": {"steps": 2}, "student": {"model": "mlp_64"}}
    with pytest.raises(ValueError, match=r"the weights of the teacher Sequential: not finite"):
        kdprune.train(settings, teachers=teacher)


def test_a_checkpoint_with_such_weights_is_named(tmp_path):
    class Fails(Observer):
        def step(self, step: int) -> None:
            if step == 3:
                raise OSError(5, "away")

    with pytest.raises(OSError, match="away"):
        train(tmp_path, FEW, Fails())
    (path,) = tmp_path.rglob("*.pth")
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    next(iter(state["parts"]["student"].values())).fill_(torch.nan)
    torch.save(state, path)
    with pytest.raises(FloatingPointError, match=rf"{path} holds weights that are not finite: remove it"):
        train(tmp_path, FEW)
