"""What is recorded of each sample while a model is trained: which numbers, of whom, and through stops and restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import StopIn, restored_surroundings, train, unfinish

from kdprune.data.dataset import open_data
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.records.dynamics import Dynamics
from kdprune.records.predictions import Predictions, remove_predictions
from kdprune.records.statistics import STATISTICS, statistics, temporal_divergence
from kdprune.runs.run_dir import RunDir
from kdprune.training.interrupt import Interrupted
from kdprune.training.observers import Observer

SETTINGS: dict[str, Any] = {"train.steps": None, "train.epochs": 4, "train.batch_size": 200}  # 6.7 batches an epoch
HALF = 2e-3  # of a value, in float16, and what follows from rounding it


class Logits(Observer):
    """Remembers what the model put out for each sample in each epoch."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], torch.Tensor] = {}

    def batch(self, batch: Any, result: Any) -> None:
        for sample, view, logits in zip(batch.ids.tolist(), batch.views.tolist(), result.output.detach(), strict=True):
            assert (sample, view) not in self.seen
            self.seen[sample, view] = logits.clone()


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("plain"), {**SETTINGS, "train.record": "plain"})[1]


@pytest.fixture(scope="module")
def observed(tmp_path_factory) -> tuple[Path, Logits]:
    logits = Logits()
    return train(tmp_path_factory.mktemp("training"), {**SETTINGS, "train.record": "training"}, logits)[1], logits


@pytest.fixture(scope="module")
def data():
    with restored_surroundings():
        from kdprune.config import DataConfig

        return open_data(DataConfig(), progress=False)


def read(run: Path, name: str, total: int = 1347) -> torch.Tensor:
    return Dynamics([run]).read(name, 0, total)


def test_training_views_are_recorded_as_they_were_trained_on(observed, data):
    run, logits = observed
    labels = torch.from_numpy(data.train.labels)
    epochs = Dynamics([run]).about.epochs
    assert epochs == 3  # of the fourth, the budget of 26 steps leaves the last batch out
    expected = torch.stack(
        [
            statistics(torch.stack([logits.seen[sample, epoch] for sample in range(len(labels))]), labels)
            for epoch in range(epochs)
        ],
        dim=1,
    )
    for name, row in zip(STATISTICS[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(read(run, name)[0], row, rtol=HALF, atol=1e-6)


def test_plain_images_are_recorded_in_evaluation_mode_after_the_epoch(plain, data):
    built = load_model(plain / "student.safetensors")
    with torch.no_grad():
        logits = built.model.eval()(Inputs(built.spec)(data.train.images))
    expected = statistics(logits, torch.from_numpy(data.train.labels))
    assert Dynamics([plain]).about.epochs == 4
    for name, row in zip(STATISTICS[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(read(plain, name)[0, -1], row, rtol=HALF, atol=1e-5)


def test_the_divergence_is_that_from_the_epoch_before(observed):
    run, logits = observed
    kl = read(run, "kl")[0]
    assert kl[0].isnan().all()
    for epoch in (1, 2):
        p, q = (
            torch.stack([logits.seen[sample, e] for sample in range(1347)]).double().softmax(1)
            for e in (epoch, epoch - 1)
        )
        expected = (p * (p / q).log()).abs().sum(1).float()
        torch.testing.assert_close(kl[epoch], expected, rtol=2e-2, atol=2e-3)


def test_recording_changes_nothing_of_the_training(plain, observed, tmp_path):
    _, run = train(tmp_path, SETTINGS)
    weights = (run / "student.safetensors").read_bytes()
    assert weights == (plain / "student.safetensors").read_bytes() == (observed[0] / "student.safetensors").read_bytes()
    assert not (run / "dynamics").exists()


def recorded(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "dynamics").iterdir())}


@pytest.mark.parametrize(("view", "stops"), [("plain", (3, 15, 20)), ("training", (1, 7, 8))])
def test_a_stopped_recording_ends_in_the_same_bytes(view, stops, plain, observed, tmp_path):
    settings = {**SETTINGS, "train.record": view, "train.checkpoint_every": "0.5"}
    for stop in stops:
        with pytest.raises(Interrupted):
            train(tmp_path, settings, StopIn(stop))
    _, run = train(tmp_path, settings)
    assert recorded(run) == recorded(plain if view == "plain" else observed[0])


def test_what_a_damaged_checkpoint_goes_back_to_is_still_there(observed, tmp_path):
    """The newest checkpoint is lost, and the predictions of the epoch before the one before it are asked for."""
    settings = {**SETTINGS, "train.record": "training", "train.checkpoint_every": "1"}
    with pytest.raises(Interrupted):
        train(tmp_path, settings, StopIn(23))
    (checkpoints,) = tmp_path.glob("*/checkpoints")
    newest = sorted(checkpoints.glob("step_*.pth"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    _, run = train(tmp_path, settings)
    assert recorded(run) == recorded(observed[0])


def test_a_run_that_was_begun_without_recording_is_not_recorded_from_the_middle(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, SETTINGS, StopIn(9))
    with pytest.raises(ValueError, match=r"--train\.record"):
        train(tmp_path, {**SETTINGS, "train.record": "plain"})


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"data.augment": "mixup(0.2)"}, "plain"),
        ({"train.steps": 3}, "plain"),
        ({"teacher.models": "mlp_64", "teacher.views": 2, "teacher.targets": "cached"}, "plain"),
    ],
)
def test_views_that_have_no_epoch_or_no_label_are_not_recorded(settings, allowed, tmp_path):
    with pytest.raises(ValueError, match=r"--train\.record: training given") as refused:
        train(tmp_path, {**SETTINGS, "train.record": "training", **settings})
    assert allowed in str(refused.value)


def test_a_record_is_part_of_its_run(plain, tmp_path):
    """Its digests are checked, it needs no data set to be read, and it is refused while the run is not finished."""
    from shutil import copytree

    from kdprune.artefact import damage
    from kdprune.scorers.common.observation import observe

    run = copytree(plain, tmp_path / "run")
    observation = observe([run])
    assert (observation.kind, observation.total, len(observation.classes)) == ("dynamics", 1347, 10)
    path = run / "dynamics" / "epoch_0002.f16"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert damage(run) == [f"{path} is not what was written: its digest differs"]
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="epoch_0002"):
        observation.read("loss", 0, 10)
    unfinish(run)
    with pytest.raises(ValueError, match="not finished"):
        observe([run])


def test_repeats_must_be_of_one_kind(plain, observed):
    with pytest.raises(ValueError, match=r"epochs|view"):
        Dynamics([plain, observed[0]])
    assert Dynamics([plain, plain]).read("loss", 5, 9).shape == (2, 4, 4)


def test_a_damaged_header_is_refused_by_name(plain, tmp_path):
    from shutil import copytree

    folder = copytree(plain / "dynamics", tmp_path / "dynamics")
    header = folder / "dynamics.json"
    content = json.loads(header.read_text())
    for broken in ([], {**content, "epochs": "many"}, {**content, "total": 0}, {"format": content["format"]}, None):
        header.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"dynamics\.json"):
            Dynamics([folder])


def test_predictions_are_kept_for_as_long_as_asked(tmp_path):
    predictions = Predictions(tmp_path, total=5, classes=3)
    log_p = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    ids = np.arange(5)
    assert predictions.exchange(1, ids, log_p[0]).isnan().all()
    for epoch in (2, 3, 4):
        half = log_p.half().float()
        expected = temporal_divergence(half[epoch - 1], half[epoch - 2])
        torch.testing.assert_close(predictions.exchange(epoch, ids, log_p[epoch - 1]), expected)
    predictions.forget(keep={1}, since=3)
    assert len(list(tmp_path.iterdir())) == 3
    assert predictions.exchange(3, ids[:2], log_p[2][:2]).isnan().all()  # of epoch 2 nothing is known any more
    remove_predictions(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_kill_after_the_last_step_loses_no_record(tmp_path, monkeypatch):
    """What the last checkpoint would be gone on from stays until the run is finished."""
    settings = {**SETTINGS, "train.checkpoint_every": "1", "train.record": "training"}
    _, expected = train(tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "finish", lambda *_: (_ for _ in ()).throw(OSError("the machine stopped")))
        with pytest.raises(OSError, match="stopped"):
            train(tmp_path / "stopped", settings)
    _, run = train(tmp_path / "stopped", settings)
    assert (run / "student.safetensors").read_bytes() == (expected / "student.safetensors").read_bytes()
    assert recorded(run) == recorded(expected)
