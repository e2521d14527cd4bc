"""The recorder by itself: ids that float32 cannot tell apart, processes that take turns, and a model that it leaves as
it was. What comes out of whole trainings is in test_dynamics.py.

Shapes: N samples of a batch, C classes.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import restored_surroundings, train

from kdprune.config import DataConfig
from kdprune.data.dataset import open_data
from kdprune.data.reader import Batch
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.records.dynamics import About, Dynamics, DynamicsFiles
from kdprune.records.statistics import STATISTICS, statistics
from kdprune.training.recorder import PlainImages, TrainingViews
from kdprune.training.step import StepResult

CLASSES = 2


@dataclass
class Process:
    """What a recorder asks of Accelerate: of one process, or of several that are threads here."""

    is_main_process: bool = True
    waits: int = 0
    barrier: threading.Barrier | None = None
    arrived: threading.Event = field(default_factory=threading.Event)

    def wait_for_everyone(self) -> None:
        self.waits += 1
        if self.barrier is not None:
            self.arrived.set()
            self.barrier.wait()


def files_of(folder: Path, total: int, epochs: int = 2) -> DynamicsFiles:
    return DynamicsFiles(folder, About("training", epochs, total, "print", ("a", "b"), total, "mlp"))


def said(ids: list[int], epochs: list[int], seed: int = 0) -> tuple[Batch, StepResult]:
    """A batch and what a model puts out for it; epochs count from 1."""
    logits_NC = torch.randn(len(ids), CLASSES, generator=torch.Generator().manual_seed(seed))
    labels_N = torch.zeros(len(ids), dtype=torch.int64)
    batch = Batch(torch.tensor(ids), torch.tensor(epochs) - 1, torch.empty(0), labels_N)
    nothing = torch.zeros(())
    return batch, StepResult(nothing, nothing, nothing, logits_NC, nothing)


@pytest.mark.parametrize("view", ["training", "plain"])
def test_ids_beyond_the_whole_numbers_of_float32(view, tmp_path):
    total, ids = 2**24 + 4, [2**24 - 1, 2**24, 2**24 + 1, 2**24 + 3]
    # Files of the full length, of which next to nothing is on the disk.
    for name, values in (("epoch_0001.f16", len(STATISTICS)), (".predictions_000001.f16", CLASSES)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2 * values * total)
    batch, result = said(ids, [1] * 4)
    common: Any = (files_of(tmp_path, total, epochs=1), np.zeros(1, dtype=np.int64), CLASSES, np.array(ids), Process())
    if view == "training":
        recorder: Any = TrainingViews(*common, epoch_steps=1)
        recorder.batch(batch, result)
        recorder.step(1)
    else:
        PlainImages(*common, predict=lambda: [(batch, result.output)]).epoch(range(1, 2), True)
    written = np.memmap(tmp_path / "epoch_0001.f16", np.float16, "r", shape=(len(STATISTICS), total))
    expected = statistics(result.output, batch.labels)[:-1].half()  # the last one is of two epochs
    np.testing.assert_array_equal(written[:-1, ids], expected.numpy())
    assert not written[:, 2**24 + 2].any()


def test_an_epoch_waits_for_what_every_process_has_of_the_one_before(tmp_path):
    """Two processes and three samples: what one of them met in the first epoch, the other one meets in the second."""
    first, second = Process(), Process(is_main_process=False)
    recorders = [
        TrainingViews(
            files_of(tmp_path, 3), np.zeros(3, dtype=np.int64), CLASSES, np.arange(3), process, epoch_steps=1.5
        )
        for process in (first, second)
    ]
    steps_of_both = [[([0], [1]), ([2], [1]), ([1], [2])], [([1], [1]), ([0], [2]), ([2], [2])]]

    def process(recorder: TrainingViews, steps: list[Any]) -> None:
        for step, (ids, epochs) in enumerate(steps, 1):
            recorder.batch(*said(ids, epochs, seed=step))
            recorder.step(step)

    first.barrier = second.barrier = threading.Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(process, recorders[1], steps_of_both[1])
        assert second.arrived.wait(30)  # and of the first epoch, nothing is written by the other one yet
        behind = pool.submit(process, recorders[0], steps_of_both[0])
        for done in (ahead, behind):
            done.result(60)
    kl = np.memmap(tmp_path / "epoch_0002.f16", np.float16, "r", shape=(len(STATISTICS), 3))[STATISTICS.index("kl")]
    assert np.isfinite(kl).all()


def test_a_resumed_recorder_knows_which_epochs_are_complete(tmp_path):
    """It has nothing to catch up on: what it meets of the next epoch may be written at once."""
    labels, ids = np.zeros(4, dtype=np.int64), np.arange(4)
    before = TrainingViews(files_of(tmp_path, 4), labels, CLASSES, ids, Process(), epoch_steps=1)
    before.batch(*said([0, 1, 2, 3], [1] * 4, seed=1))
    before.step(1)
    state = before.state_dict()
    process = Process()
    after = TrainingViews(files_of(tmp_path, 4), labels, CLASSES, ids, process, epoch_steps=1)
    after.load_state_dict(state)
    after.batch(*said([0, 1, 2, 3], [2] * 4, seed=2))
    assert after.state_dict()["complete"] == 1
    assert not np.isnan(np.fromfile(tmp_path / "epoch_0002.f16", np.float16)).any()
    waits = process.waits
    after.step(2)
    assert process.waits == waits + 1  # for the end of the second epoch, and not of the first one again


def test_plain_statistics_are_of_evaluation_mode_and_the_training_goes_on_as_if_there_were_none(tmp_path):
    """With BatchNorm and dropout, and no evaluation before it that would have changed the mode."""
    settings = {
        "student.model": "cifar_resnet8", "student.drop_rate": 0.5, "train.steps": None, "train.epochs": 2,
        "train.batch_size": 200, "train.eval_every": 100, "train.save_epochs": [1],
    }  # fmt: skip
    _, run = train(tmp_path / "recorded", {**settings, "train.record": "plain"})
    _, bare = train(tmp_path / "bare", settings)
    assert (run / "student.safetensors").read_bytes() == (bare / "student.safetensors").read_bytes()
    with restored_surroundings():
        split = open_data(DataConfig(), progress=False).train
    snapshot = load_model(run / "checkpoints" / "epoch_0001.safetensors")
    with torch.no_grad():
        logits_NC = snapshot.model.eval()(Inputs(snapshot.spec)(split.images))
    expected = statistics(logits_NC, torch.from_numpy(split.labels))
    for name, of_all in zip(STATISTICS[:-1], expected[:-1], strict=True):
        recorded = Dynamics([run]).read(name, 0, len(split))[0, 0]
        torch.testing.assert_close(recorded, of_all, rtol=2e-3, atol=1e-4)
