"""What goes wrong in a process that decodes images is said as if it had gone wrong here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers import options, said_by, train
from PIL import Image

from kdprune.data.workers import ViewWorker

SETTINGS = {
    "data.memory_gb": 0.0,
    "data.image_size": 8,
    "data.augment": "none",
    "train.steps": 4,
    "train.batch_size": 8,
}


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for i in range(24):
        place = tmp_path / "photos" / ("train" if i < 18 else "test") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return tmp_path / "photos"


def arguments(photos: Path, output: Path, **more: object) -> list[str]:
    given = {**SETTINGS, "data.dataset": photos, "output": output, "student.model": "mlp_64", **more}
    return ["train", *options(**{name.replace(".", "__"): value for name, value in given.items()})]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_unreadable_image_is_one_line_with_its_path(photos, tmp_path, workers, part):
    words = arguments(photos, tmp_path / "runs", **{"data.workers": workers})
    path = photos / part / "a" / ("4.png" if part == "train" else "20.png")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))
    status, _, said = said_by(words)
    assert status == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert str(path) in errors[0]
    assert "Traceback" not in said
    assert "worker process" not in said


def test_a_worker_that_died(photos, tmp_path, monkeypatch):
    def die(self, ids, views):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ViewWorker, "_decode", die)
    with pytest.raises(ChildProcessError, match=r"a process that decodes images died .*--data\.workers"):
        train(tmp_path, {**SETTINGS, "data.dataset": str(photos), "data.workers": 1})
