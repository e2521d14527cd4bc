"""Training on cached targets is training with the teacher, paid once."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import StopIn, config_of, metrics, options, plain, restored_surroundings, timeless, train

from kdprune.artefact import FILE
from kdprune.cli import main
from kdprune.config import Config, relevant
from kdprune.data.dataset import open_data
from kdprune.data.stream import Stream
from kdprune.data.subset import Subset
from kdprune.losses.kd import kd
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.pipeline.cache import CacheResult, cache
from kdprune.teachers.cache import TargetCache
from kdprune.training.interrupt import Interrupted
from kdprune.training.observers import Observer

KEPT, STEPS, BATCH = 404, 22, 64  # 3.5 epochs, so 4 views
VIEWS = 4
LOSSES = ("train_loss", "task_loss", "kd_loss", "test_loss")
DEFAULTS = relevant(Config())


@pytest.fixture(scope="module")
def settings(digits_teacher) -> dict[str, Any]:
    return {"teacher.models": str(digits_teacher), "subset.keep_fraction": 0.3, "distill.alpha": 0.7}


def cached(settings: dict[str, Any], folder: Path, **more: object) -> dict[str, Any]:
    """Settings of a run on cached targets in `folder`."""
    new = {**settings, "teacher.targets": "cached", "teacher.cache": str(folder)}
    return new | {name.replace("__", "."): value for name, value in more.items()}


def passes(summary: dict[str, Any]) -> int:
    """Samples that went through a teacher."""
    assert "teacher_forward_samples" in summary["cost"]["student_training"]
    online = summary["cost"]["student_training"]["teacher_forward_samples"]
    return summary["cost"]["target_caching"]["forward_samples"] + online


def fill(output: Path, settings: dict[str, Any], verify: bool = False) -> CacheResult:
    """`kdprune cache` in this process."""
    with restored_surroundings():
        return cache(config_of(output, settings), verify)


def kdprune(words: str, output: Path, settings: dict[str, Any]) -> int:
    """The command line in this process; its exit status."""
    given = relevant(config_of(output, settings))
    given |= {"output": output, "teacher.cache": settings["teacher.cache"]}
    others = {name: x for name, x in given.items() if DEFAULTS.get(name) != x}
    with restored_surroundings():
        return main([*words.split(), *options(data__dataset="digits", **others)])


def close(run: Path, other: Path) -> bool:
    """Measured: the losses of two runs that differ by float16 logits are within 3e-5 of each other."""
    rows, others = metrics(run), metrics(other)
    assert len(rows) == len(others) == VIEWS
    return all(
        float(row[name]) == pytest.approx(float(twin[name]), rel=2e-4)
        for row, twin in zip(rows, others, strict=True)
        for name in LOSSES
    )


@pytest.mark.parametrize("augment", ["crop(1)", "crop(1)+mixup(0.4)+cutmix"])
def test_a_view_for_each_epoch_gives_what_the_teacher_gives(tmp_path, settings, augment):
    """float16 keeps a logit to 5e-4 of itself, and the losses far better: the roundings of a batch cancel."""
    online, one = train(tmp_path, {**settings, "data.augment": augment})
    first, two = train(tmp_path, cached(settings, tmp_path / "targets", data__augment=augment))
    second, three = train(tmp_path, cached(settings, tmp_path / "targets", data__augment=augment, name="again"))
    assert close(one, two)
    assert timeless(two) == timeless(three)
    assert passes(online) == STEPS * BATCH
    assert STEPS * BATCH <= passes(first) <= STEPS * BATCH + VIEWS * BATCH
    assert passes(second) == 0
    assert second["cost"]["target_caching"]["forward_samples"] == 0
    assert first["test_top1"] == pytest.approx(online["test_top1"], abs=2 / 450)


class Batches(Observer):
    """Keeps every batch with its result."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Any]] = []

    def batch(self, batch, result) -> None:
        self.seen.append((batch, result))


def test_with_fewer_views_student_and_teacher_meet_the_same_ones_again(tmp_path, settings, digits_teacher):
    """Epoch e has view e mod V; the target of a view is what the teacher says of the image that the student sees."""
    observer = Batches()
    summary, run = train(tmp_path, cached(settings, tmp_path / "targets", teacher__views=2), observer)
    stream = Stream(np.unique(torch.cat([batch.ids for batch, _ in observer.seen]).numpy()), BATCH, 0)
    assert len(stream.ids) == KEPT
    assert len(observer.seen) == STEPS
    teacher = load_model(digits_teacher / "student.safetensors")
    teacher.model.eval()
    for step, (batch, result) in enumerate(observer.seen):
        expected_ids, epochs = stream.batch(step)
        assert torch.equal(batch.ids, expected_ids)
        assert torch.equal(batch.views, epochs % 2)
        with torch.no_grad():
            said = teacher.model(Inputs(teacher.spec, batch.images.device)(batch.images))
        # a GPU's TF32 is off by that, too
        assert result.kd_loss.item() == pytest.approx(kd(result.output, said, 4.0).item(), rel=2e-3, abs=1e-4)
    assert 2 * KEPT <= passes(summary) <= 2 * KEPT + 3 * BATCH
    assert sorted(os.listdir(tmp_path / "targets")) == [FILE, "view_00000.bin", "view_00001.bin"]
    online, other = train(tmp_path, {**settings, "teacher.views": 2})
    assert close(run, other)
    assert passes(online) == STEPS * BATCH


def test_a_filled_cache_serves_any_batch_size_and_any_number_of_epochs(tmp_path, settings):
    folder = tmp_path / "targets"
    filled = fill(tmp_path, cached(settings, folder))
    assert filled.written == VIEWS * KEPT
    assert fill(tmp_path, cached(settings, folder)).written == 0
    for batch, steps in ((101, 12), (404, 4)):
        summary, _ = train(tmp_path, cached(settings, folder, train__batch_size=batch, train__steps=steps))
        assert passes(summary) == 0
    longer, _ = train(tmp_path, cached(settings, folder, train__steps=30))
    assert passes(longer) >= 30 * BATCH - VIEWS * KEPT  # views that were not there yet, and only those
    assert passes(longer) <= 30 * BATCH - VIEWS * KEPT + BATCH
    by_epochs, _ = train(tmp_path, cached(settings, folder, train__steps=None, train__epochs=3))
    assert passes(by_epochs) == 0


def test_a_resumed_run_gives_the_same_from_the_cache_and_without_it(tmp_path, settings):
    _, whole = train(tmp_path / "whole", cached(settings, tmp_path / "targets"))
    for name, keeps_cache in (("kept", True), ("lost", False)):
        mine = cached(settings, tmp_path / name / "targets")
        with pytest.raises(Interrupted, match="step 9 of 22"):
            train(tmp_path / name, mine, StopIn(9))
        if not keeps_cache:
            shutil.rmtree(tmp_path / name / "targets")
        summary, run = train(tmp_path / name, mine)
        assert passes(summary) == STEPS * BATCH  # what it cost before it was stopped is not forgotten
        if keeps_cache:
            assert timeless(run) == timeless(whole)
        else:  # computed in other batches, which may change a last bit
            assert close(run, whole)
        again, _ = train(tmp_path / name, {**mine, "name": "again"})
        assert passes(again) == (0 if keeps_cache else 9 * BATCH)


def test_filling_can_be_stopped_and_goes_on(tmp_path, settings, monkeypatch, capsys):
    mine = cached(settings, tmp_path / "targets")
    original, written = TargetCache.write, []

    def stopping(self, *entries):
        written.append(entries)
        if len(written) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *entries)

    with monkeypatch.context() as patch:
        patch.setattr(TargetCache, "write", stopping)
        assert kdprune("cache", tmp_path, mine) == 130
    assert "320 of 1,616 entries" in capsys.readouterr().err
    result = fill(tmp_path, mine, verify=True)
    assert result.written == VIEWS * KEPT - 5 * BATCH
    assert result.error < 1e-3
    assert passes(train(tmp_path, mine)[0]) == 0


def subset_file(path: Path, keep: np.ndarray) -> dict[str, Any]:
    """Settings of a run on these sample ids of the digits."""
    data = open_data(Config().data)
    Subset(keep, len(data.train), data.fingerprint, {"selector": "by hand"}).save(path)
    return {"subset.file": str(path)}


def test_two_subsets_pay_the_teacher_for_each_sample_once(tmp_path, settings):
    """Targets belong to samples, whatever the subset: the second run computes what the first had no use for."""
    own = {**settings, "teacher.targets": "cached", "teacher.views": 2, "train.steps": None, "train.epochs": 2}
    del own["subset.keep_fraction"]
    first, second = np.arange(0, 600), np.arange(300, 1300, 2)
    low, high = (subset_file(tmp_path / f"{name}.json", ids) for name, ids in (("low", first), ("high", second)))
    assert fill(tmp_path, {**own, **low}).written == 2 * len(first)
    summary, run = train(tmp_path, {**own, **high, "name": "high"})
    steps = 2 * len(second) // BATCH
    new = 2 * len(np.setdiff1d(second, first)) - (2 * len(second) - steps * BATCH)  # the last batch is not full
    assert new <= summary["cost"]["target_caching"]["forward_samples"] <= 2 * len(np.setdiff1d(second, first))
    fill(tmp_path, {**own, **high})
    both = subset_file(tmp_path / "both.json", np.union1d(first, second))
    assert fill(tmp_path, {**own, **both}, verify=True).written == 0
    assert passes(train(tmp_path, {**own, **both, "name": "both"})[0]) == 0
    assert len(list((tmp_path / "targets").iterdir())) == 1
    online, other = train(tmp_path, {**own, **high, "teacher.targets": "online", "name": "online"})
    assert float(metrics(run)[-1]["test_loss"]) == pytest.approx(float(metrics(other)[-1]["test_loss"]), rel=2e-4)
    assert passes(online) == steps * BATCH
    # Partners of mixed samples are drawn from the kept ones, so there each subset has views of its own.
    for keep in (low, high):
        mixed = {**own, **keep, "data.augment": "crop(1)+mixup", "teacher.cache": str(tmp_path / "mixed")}
        if keep is low:
            fill(tmp_path, mixed)
        else:
            with pytest.raises(ValueError, match="subset: "):
                fill(tmp_path, mixed)


def damage(path: Path, entry_bytes: int, sample_id: int) -> None:
    """Turn over every bit of one entry, which begins after the pages of checksums."""
    content = bytearray(path.read_bytes())
    start = 8192 + sample_id * entry_bytes
    content[start : start + entry_bytes] = bytes(255 - byte for byte in content[start : start + entry_bytes])
    path.write_bytes(content)


@pytest.mark.parametrize(("top_k", "entry_bytes"), [(None, 20), (3, 18)])
def test_verify_heals_what_is_damaged_and_finds_what_is_wrong(tmp_path, settings, capsys, top_k, entry_bytes):
    few = {**settings, "subset.keep_fraction": 0.15}  # 202 entries of a view: all are verified
    mine = cached(few, tmp_path / "targets", **({} if top_k is None else {"teacher__top_k": top_k}))
    assert kdprune("cache --verify", tmp_path, mine) == 0
    assert "verified 202 entries in each of 7 views: relative error at most" in capsys.readouterr().err
    file = tmp_path / "targets" / "view_00005.bin"
    whole = file.read_bytes()
    assert len(whole) == 8192 + 1347 * entry_bytes
    sample_id = int(np.flatnonzero(np.frombuffer(whole, np.uint32, 1347))[77])
    damage(file, entry_bytes, sample_id)
    result = fill(tmp_path, mine, verify=True)
    assert (result.written, result.healed) == (0, 1)
    assert result.error < 5e-3

    cache, written = TargetCache.write, []

    def wrong(self, view, ids, words):  # a bug, say; its checksum is right
        cache(self, view, ids, words + 3000 * ((view == 5) & (ids == sample_id))[:, None].astype(np.int16))
        written.append(ids)

    file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TargetCache, "write", wrong)
        fill(tmp_path, mine)
    assert written
    assert kdprune("cache --verify", tmp_path, mine) == 2
    said = plain(capsys.readouterr().err)
    assert f"{tmp_path / 'targets'}: the entry of sample {sample_id} in view 5 is off by" in said
    file.unlink()
    assert kdprune("cache --verify", tmp_path, mine) == 0


def test_a_damaged_entry_is_computed_again_by_training(tmp_path, settings, caplog):
    mine = cached(settings, tmp_path / "targets")
    _, whole = train(tmp_path, mine)
    file = tmp_path / "targets" / "view_00001.bin"
    for sample_id in np.flatnonzero(np.fromfile(file, np.uint32, 1347))[[3, 50]]:
        damage(file, 20, sample_id)
    for name, computed in (("again", 2), ("and again", 0)):
        caplog.clear()
        summary, run = train(tmp_path, {**mine, "name": name})
        assert passes(summary) == computed
        assert caplog.text.count("do not fit their checksums") == bool(computed)
        assert close(run, whole)


def test_a_cache_of_something_else_is_refused_before_the_first_step(tmp_path, settings, digits_teacher, capsys):
    folder = tmp_path / "targets"
    fill(tmp_path, cached(settings, folder))
    others = {
        "teacher.weights": {"teacher.models": f"{digits_teacher}@1"},
        "views.recipe.crop": {"data.augment": "crop(2)"},
        "views.seed": {"seed": 1},
        "entries": {"teacher.top_k": 3},
        "precision": {"train.precision": "bf16"},
        "engine": {"teacher.engine": "plain"},
    }
    for name, change in others.items():
        assert kdprune("train", tmp_path, {**cached(settings, folder), **change}) == 2
        said = plain(capsys.readouterr().err)
        assert f"{folder} holds cached targets of something else ({name}: " in said
        assert said.count(" there, ") == 1
        assert "Traceback" not in said
    assert passes(train(tmp_path, cached(settings, folder))[0]) == 0  # nothing was lost


def test_views_made_in_another_way_have_other_targets_and_another_run(tmp_path, digits_teacher):
    """Without a decoded store, workers antialias what they scale."""
    settings = {
        "teacher.models": str(digits_teacher), "teacher.targets": "cached", "subset.keep_fraction": 0.3,
        "data.image_size": 8, "data.augment": "rrc(0.3)",
    }  # fmt: skip
    for memory in (2.0, 0.0):
        summary, _ = train(tmp_path, {**settings, "data.memory_gb": memory})
        assert passes(summary) >= KEPT
    assert len(list((tmp_path / "targets").iterdir())) == 2


def test_what_was_trained_before_the_disk_failed_is_kept(tmp_path, settings, monkeypatch):
    mine = cached(settings, tmp_path / "targets", name="mine", train__grad_accum=2)
    _, whole = train(tmp_path / "whole", mine)
    shutil.rmtree(tmp_path / "targets")
    written, original = [], TargetCache.write

    def failing(self, *entries):
        if len(written) == 19:  # the second part of the tenth step
            raise OSError(28, "No space left on device")
        written.append(entries)
        return original(self, *entries)

    with monkeypatch.context() as patch:
        patch.setattr(TargetCache, "write", failing)
        with pytest.raises(OSError, match="No space left"):
            train(tmp_path / "broken", mine)
    (checkpoint,) = (tmp_path / "broken" / "mine" / "checkpoints").iterdir()
    assert checkpoint.name == "step_000000009.pth"
    _, broken = train(tmp_path / "broken", mine)
    assert timeless(whole) == timeless(broken)


def test_a_truncated_file_and_a_full_disk_are_said_before_the_first_step(tmp_path, settings, monkeypatch, capsys):
    folder = tmp_path / "targets"
    mine = cached(settings, folder)
    fill(tmp_path, mine)
    last = folder / f"view_{VIEWS - 1:05d}.bin"
    os.truncate(last, 9000)
    assert kdprune("train", tmp_path, mine) == 2
    said = plain(capsys.readouterr().err)
    assert f"error: --teacher.cache: {last} " in said
    assert "9,000 bytes" in said
    assert "epoch 1/" not in said
    last.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100))
        for words in ("train", "cache"):
            assert kdprune(words, tmp_path, mine) == 1
            assert "4 views of 404 samples need" in plain(capsys.readouterr().err)
    summary, _ = train(tmp_path, mine)
    used = STEPS * BATCH - (VIEWS - 1) * KEPT  # of the last view
    assert used <= passes(summary) <= used + BATCH


def test_the_largest_logits_are_not_enough_for_some_losses(tmp_path, settings):
    for loss, named in {
        "kd + 0.1*mse_logits": "mse_logits", "logit_std": "logit_std", "dist": "dist",
        "nkd": r"--distill\.temperature 4, and nkd reads it at 1",
        "kd(temperature=2)": r"--distill\.temperature 4, and kd reads it at 2",
    }.items():  # fmt: skip
        wanted = cached(settings, tmp_path / "targets", distill__loss=loss, teacher__top_k=3)
        for start in (train, fill):
            with pytest.raises(ValueError, match=named):
                start(tmp_path, wanted)
        assert not (tmp_path / "targets").exists()
    train(tmp_path, {**wanted, "teacher.top_k": None, "train.steps": 1})


def test_losses_between_features_have_no_use_for_a_cache(tmp_path, settings):
    wanted = cached(
        settings, tmp_path / "targets", distill__loss="kd + 100*attention_transfer", student__model="cifar_resnet8"
    )
    for start in (train, fill):
        with pytest.raises(ValueError, match="compares features, which no cache holds"):
            start(tmp_path, wanted)
    assert not (tmp_path / "targets").exists()


def test_there_must_be_a_teacher_that_stays_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="none given, so there is nothing to cache"):
        fill(tmp_path, {})
    with pytest.raises(ValueError, match="the student's own moving average"):
        fill(tmp_path, {"teacher.models": "ema", "train.ema": 0.9})


def test_a_few_logits_teach_nearly_the_same_at_any_temperature(tmp_path, settings):
    """The three largest of ten, at both temperatures from one cache."""
    for temperature, computed in ((1.0, True), (4.0, False)):
        same = {**settings, "distill.temperature": temperature}
        _, online = train(tmp_path, same)
        summary, run = train(tmp_path, cached(same, tmp_path / "targets", teacher__top_k=3))
        assert bool(passes(summary)) == computed
        for row, other in zip(metrics(run), metrics(online), strict=True):
            assert float(row["test_loss"]) == pytest.approx(float(other["test_loss"]), rel=0.02)


def test_each_of_several_teachers_has_a_cache_of_its_own(tmp_path, settings, digits_teacher):
    both = {
        **settings, "teacher.models": [str(digits_teacher), f"{digits_teacher}@1"], "teacher.weights": [0.7, 0.3],
        "teacher.temperatures": [4.0, 2.0],
    }  # fmt: skip
    _, online = train(tmp_path, both)
    first, run = train(tmp_path, cached(both, tmp_path / "targets"))
    assert sorted(os.listdir(tmp_path / "targets")) == ["teacher_0", "teacher_1"]
    assert close(run, online)
    assert 2 * STEPS * BATCH <= passes(first) <= 2 * (STEPS + VIEWS) * BATCH
    again, other = train(tmp_path, cached(both, tmp_path / "targets", name="again"))
    assert passes(again) == 0
    assert timeless(run) == timeless(other)


def test_a_teacher_that_joins_another_pays_for_itself_alone(tmp_path, settings, digits_teacher):
    """Where no folder is named, a cache is found by what it depends on."""
    own = {**settings, "teacher.targets": "cached"}
    fill(tmp_path, own)
    (folder,) = (tmp_path / "targets").iterdir()
    result = fill(tmp_path, {**own, "teacher.models": [str(digits_teacher), f"{digits_teacher}@1"]}, verify=True)
    assert folder in result.folders
    assert len(result.folders) == len(set(result.folders)) == 2
    summary, _ = train(tmp_path, {**own, "teacher.models": [f"{digits_teacher}@1", str(digits_teacher)]})
    assert passes(summary) == 0


def test_two_students_and_the_baseline_share_one_cache(tmp_path, settings):
    own = {**settings, "teacher.targets": "cached"}
    first, _ = train(tmp_path, own)
    second, _ = train(tmp_path, {**own, "student.model": "cifar_resnet8", "baseline": True, "distill.alpha": 0.2})
    assert passes(first) > 0
    assert passes(second) == 0
    assert len(list((tmp_path / "targets").iterdir())) == 1
