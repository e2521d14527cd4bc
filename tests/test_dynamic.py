"""Trainings with dynamic data pruning: exact, resumable, and with a teacher."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import REPO, StopIn, config_of, metrics, restored_surroundings, timeless, train
from PIL import Image
from test_orders import literal_infobatch

from kdprune import registry
from kdprune.data.scores import Scores
from kdprune.data.stream import Stream
from kdprune.orders.common.plan import Plan
from kdprune.pipeline.cache import cache
from kdprune.pipeline.session import open_session
from kdprune.runs.accelerator import make_accelerator
from kdprune.training.interrupt import Interrupted
from kdprune.training.observers import Observer

EPOCHS = {"train.steps": None, "train.epochs": 6, "train.eval_every": 100}
INFOBATCH = {**EPOCHS, "subset.dynamic": "infobatch(ratio=0.6, anneal=0.8)"}
RS2 = {**EPOCHS, "subset.dynamic": "rs2", "subset.keep_fraction": 0.3}
CURRICULUM = {**EPOCHS, "subset.dynamic": "curriculum('random', 'root')", "subset.keep_fraction": 0.5}
ALL = pytest.mark.parametrize("method", [INFOBATCH, RS2, CURRICULUM], ids=["infobatch", "rs2", "curriculum"])


class Losses(Observer):
    """Remembers of each batch who was in it, in which view, with which weight, and what each one's loss was."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def batch(self, batch: Any, result: Any) -> None:
        weights = [1.0] * len(batch.ids) if batch.weights is None else batch.weights.tolist()
        each = None if result.each is None else result.each.tolist()
        row = {"ids": batch.ids.tolist(), "views": batch.views.tolist(), "weights": weights, "each": each}
        self.seen.append({**row, "loss": result.loss.item()})


def weights_of(run: Path) -> bytes:
    return (run / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def infobatch(tmp_path_factory, digits_teacher):
    """A run with InfoBatch and a teacher: its summary, its directory, and what it saw."""
    losses = Losses()
    settings = {**INFOBATCH, "teacher.models": str(digits_teacher), "train.smoothing": 0.1, "subset.keep_fraction": 0.7}
    summary, run = train(tmp_path_factory.mktemp("infobatch"), settings, losses)
    return summary, run, losses.seen


def test_a_training_follows_the_rule_by_its_own_losses(infobatch):
    """The losses are those of cross-entropy and distillation together, as they were before their weights."""
    summary, run, seen = infobatch
    ids = np.array(json.loads((run / "subset.json").read_text())["ids"])
    plan = Plan(ids, 64, summary["kept"] * 6 // 64, len(ids), 0)
    steps = literal_infobatch(plan, 0.6, 0.8, lambda _, step: torch.tensor(seen[step]["each"]))
    assert len(seen) == len(steps) == summary["steps"] < plan.steps
    for row, (ids, epochs, weights) in zip(seen, steps, strict=True):
        assert [row["ids"], row["views"]] == [ids, epochs]
        assert row["weights"] == pytest.approx(weights)
        assert row["loss"] == pytest.approx(np.mean(np.array(weights) * row["each"]), rel=1e-5)


def test_the_summary_says_what_infobatch_saved(infobatch):
    summary, run, seen = infobatch
    rows = metrics(run)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 7))
    assert sum(int(row["samples"]) for row in rows) == summary["images_seen"] == 64 * len(seen)
    assert summary["cost"]["student_training"]["forward_samples"] == summary["images_seen"]
    assert summary["dynamic"]["epochs"] == 6
    assert summary["dynamic"]["saved"] == pytest.approx(1 - len(seen) / (summary["kept"] * 6 // 64))
    assert 0.1 < summary["dynamic"]["saved"] < 0.6
    rates = [float(row["lr"]) for row in rows]  # of the cosine, by the epochs and not by the steps
    assert rates == pytest.approx([0.025 * (1 + math.cos(math.pi * e / 6)) for e in range(1, 7)], abs=0.004)


@ALL
def test_a_run_that_was_stopped_in_an_epoch_ends_with_the_same_bits(tmp_path, method):
    """tests/test_orders.py stops at every step."""
    settings = {**method, "train.epochs": 4, "student.drop_rate": 0.2, "name": "mine"}
    whole = train(tmp_path / "whole", settings)[1]
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", settings, StopIn(23))
    run = train(tmp_path / "broken", settings)[1]
    assert weights_of(run) == weights_of(whole)
    assert timeless(run) == timeless(whole)


def test_accumulated_parts_are_one_batch_with_infobatch(tmp_path):
    one, parts = Losses(), Losses()
    train(tmp_path / "one", {**INFOBATCH, "train.epochs": 3}, one)
    train(tmp_path / "parts", {**INFOBATCH, "train.epochs": 3, "train.grad_accum": 2}, parts)
    pairs = zip(parts.seen[::2], parts.seen[1::2], strict=True)
    assert [a["ids"] + b["ids"] for a, b in pairs] == [row["ids"] for row in one.seen]


def test_images_of_no_store_train_the_same_from_any_number_of_workers(tmp_path):
    """Workers read ahead, as far as the losses allow it."""
    random = np.random.default_rng(0)
    for i in range(40):
        place = tmp_path / "images" / ("train" if i < 34 else "test") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(place / f"{i}.png")
    settings = {
        **INFOBATCH, "data.dataset": str(tmp_path / "images"), "data.memory_gb": 0.0, "data.image_size": 12,
        "data.augment": "flip", "train.batch_size": 8, "train.epochs": 3,
    }  # fmt: skip
    bits = {weights_of(train(tmp_path / str(n), {**settings, "data.workers": n})[1]) for n in (0, 2)}
    assert len(bits) == 1


@ALL
def test_cached_targets_are_those_of_a_teacher_that_runs(tmp_path, method, digits_teacher):
    settings = {**method, "teacher.models": str(digits_teacher), "train.epochs": 3, "teacher.views": 2}
    online, cached = Losses(), Losses()
    train(tmp_path, settings, online)
    with restored_surroundings():
        written = cache(config_of(tmp_path, settings)).written
    summary, _ = train(tmp_path, {**settings, "teacher.targets": "cached"}, cached)
    assert summary["cost"]["target_caching"]["forward_samples"] == 0  # none was missing
    views = {view for row in cached.seen for view in row["views"]}
    assert written == (max(views) + 1) * summary["dynamic"]["may_be_seen"]
    assert max(views) <= 1
    for row, other in zip(online.seen[:20], cached.seen[:20], strict=True):
        assert row["ids"] == other["ids"]
        assert row["loss"] == pytest.approx(other["loss"], rel=5e-3)


def test_rs2_meets_the_samples_of_a_training_on_all_and_counts_its_epochs(tmp_path):
    losses = Losses()
    summary, run = train(tmp_path, RS2, losses)
    size = round(0.3 * 1347)
    assert summary["kept"] == size
    assert summary["keep_fraction"] == pytest.approx(0.3, abs=1e-3)
    assert summary["total"] == summary["dynamic"]["may_be_seen"] == 1347
    assert summary["steps"] == 6 * size // 64 == len(losses.seen)
    assert summary["dynamic"]["saved"] == pytest.approx(0.7, abs=1e-3)
    stream = Stream(np.arange(1347), 64, 0)
    for step, row in enumerate(losses.seen):
        assert [row["ids"], row["views"]] == [column.tolist() for column in stream.batch(step)]
    assert [int(row["epoch"]) for row in metrics(run)] == list(range(1, 7))
    full, _ = train(tmp_path, {**RS2, "train.budget": "full"})
    assert full["steps"] == 6 * 1347 // 64


def scored(path: Path, values: np.ndarray) -> str:
    """A score file of the digits."""
    with restored_surroundings():
        session = open_session(config_of(path), make_accelerator("no", [], str(path)))
    split = session.data
    file = path / f"{values.sum()}.parquet"
    Scores(values, split.train.labels, split.fingerprint, "mine", "low").save(file)
    return str(file)


def test_a_curriculum_goes_by_scores_and_takes_the_steps_of_its_budget(tmp_path):
    scores = np.random.default_rng(0).normal(size=1347).astype(np.float32)
    settings = {**EPOCHS, "subset.dynamic": "curriculum(start=0.1)", "name": "mine"}
    losses = Losses()
    summary, run = train(tmp_path, {**settings, "subset.scores": scored(tmp_path, scores)}, losses)
    assert summary["steps"] == 6 * 1347 // 64
    first = [i for row in losses.seen[:2] for i in row["ids"]]
    assert set(first) <= set(np.argsort(-scores)[:135].tolist())  # high scores are easy, the file says
    rows = metrics(run)
    assert len(rows) == summary["dynamic"]["epochs"] > 6
    assert int(rows[0]["samples"]) < int(rows[-2]["samples"])
    with pytest.raises(ValueError, match="scores"):  # of another run
        train(tmp_path, {**settings, "subset.scores": scored(tmp_path, -scores)})
    with pytest.raises(ValueError, match=r"--subset\.dynamic: .*--subset\.scores"):
        train(tmp_path, {**settings, "name": "other"})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"subset.dynamic": "infobach"}, r"--subset\.dynamic: .*'infobach'.*'infobatch'.*rs2"),
        ({"subset.dynamic": "infobatch(rate=0.5)"}, r"--subset\.dynamic: .*'rate'.*ratio"),
        ({"subset.dynamic": "infobatch(ratio=2)"}, r"--subset\.dynamic: ratio.*2 given"),
        ({"subset.dynamic": "rs2(0.3)"}, r"--subset\.dynamic: order rs2 takes no parameters"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, settings, says):
    with pytest.raises(ValueError, match=says):
        train(tmp_path, settings)
    assert not any(tmp_path.iterdir())


def test_a_loss_that_compares_samples_cannot_be_weighted(tmp_path, digits_teacher):
    settings = {"teacher.models": str(digits_teacher), "distill.loss": "kd + dist"}
    with pytest.raises(ValueError, match=r"--subset\.dynamic: infobatch.*--distill\.loss kd \+ dist"):
        train(tmp_path, {**settings, "subset.dynamic": "infobatch"})
    assert not any(tmp_path.iterdir())
    train(tmp_path, {**settings, **RS2, "train.epochs": 1})


def test_options_without_effect_warn(tmp_path, caplog):
    logging.getLogger("kdprune").propagate = True
    with caplog.at_level(logging.WARNING, "kdprune"):
        train(tmp_path, {**EPOCHS, "train.epochs": 1, "subset.dynamic": "rs2", "subset.balanced": True})
    assert "--subset.balanced has no effect" in caplog.text
    assert "--subset.dynamic has no effect" in caplog.text


def test_every_order_has_its_section():
    text = (REPO / "docs" / "dynamic.md").read_text()
    assert sorted(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) == registry.names("orders")


def test_a_run_with_it_is_another_one_than_without(tmp_path):
    settings = {**EPOCHS, "train.epochs": 1}
    (plain, _), (dynamic, run) = train(tmp_path, settings), train(tmp_path, {**settings, "subset.dynamic": "infobatch"})
    assert "dynamic" not in plain
    assert "dynamic" not in plain["key"]
    assert dynamic["config_hash"] != plain["config_hash"]
    assert dynamic["key_hash"] != plain["key_hash"]
    assert "infobatch" in run.name
    assert dynamic["steps"] == plain["steps"]  # one epoch, the first, holds all
