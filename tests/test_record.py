"""Records of passes over all samples: the same rows however they are computed, found again, refused where they are not
what is asked for; and scores and subsets that follow from them in one command."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import StopIn, config_of, only_run, restored_surroundings, said_by, train, unfinish

from kdprune.data.scores import load_scores
from kdprune.data.subset import load_subset
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.models.locate import snapshots
from kdprune.pipeline.recording.memorization import COLUMNS as COUNTS
from kdprune.pipeline.recording.memorization import record_counts
from kdprune.pipeline.recording.teacher import OF_TEACHER
from kdprune.pipeline.session import open_session
from kdprune.pipeline.train import record
from kdprune.records.rows import About, Column, RowFiles, RowRecord
from kdprune.records.statistics import statistics
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import WEIGHTS
from kdprune.scorers.common.apply import score
from kdprune.scorers.common.observation import observe
from kdprune.testing.simulated import counts_of
from kdprune.training.interrupt import Interrupted

TINY: dict[str, Any] = {"train.steps": None, "train.epochs": 2, "train.batch_size": 200}


def recorded(kind: str, output: Path, options: dict[str, Any]) -> list[Path]:
    with restored_surroundings():
        return record(kind, config_of(output, {**TINY, **options}))


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    from kdprune.config import DataConfig
    from kdprune.data.dataset import open_data

    data = open_data(DataConfig(), progress=False)
    assert data.train.images is not None
    return data.train.images, torch.from_numpy(data.train.labels)


def outputs(weights: Path, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and penultimate features of a student, by its own parts."""
    built = load_model(weights)
    model: Any = built.model.eval()
    with torch.no_grad():
        features = model.forward_head(model.forward_features(Inputs(built.spec)(images)), pre_logits=True)
        return model.get_classifier()(features), features


def test_a_teacher_is_recorded_in_one_pass(tmp_path, digits_teacher, images):
    pixels, labels = images
    (folder,) = recorded("teacher", tmp_path, {"teacher.models": str(digits_teacher)})
    logits, features = outputs(digits_teacher / "student.safetensors", pixels)
    rows = RowRecord(folder)
    for name, expected in zip(OF_TEACHER, statistics(logits, labels), strict=False):  # the last one is of two epochs
        np.testing.assert_allclose(rows.rows(name)[:], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows.rows("features")[:], features, rtol=1e-3, atol=1e-5)
    error = logits.softmax(1) - torch.nn.functional.one_hot(labels, 10)
    expected = error.norm(dim=1) * (1 + features.square().sum(1)).sqrt()
    np.testing.assert_allclose(rows.rows("last_layer_gradient_norm")[:], expected, rtol=1e-4, atol=1e-5)


def test_several_teachers_are_scored_one_by_one_and_averaged(tmp_path, digits_teacher, caplog):
    """As repeats of dynamics are: of each teacher by itself, so that none is passed over."""
    _, other = train(tmp_path, {"name": "other", "train.steps": 3, "student.model": "mlp_64"})
    alone = [recorded("teacher", tmp_path, {"teacher.models": str(run)})[0] for run in (digits_teacher, other)]
    both = recorded("teacher", tmp_path, {"teacher.models": f"{digits_teacher},{other}"})
    assert both == alone  # found, not made again
    for text in ("teacher_el2n", "teacher_margin", "teacher_prototypes"):
        one, two = (score(text, observe([folder])).values for folder in alone)
        found = score(text, observe(both))
        np.testing.assert_allclose(found.values, (one.astype(float) + two) / 2, rtol=1e-6)
        assert np.abs(one - two).max() > 0.01
        assert len(found.origin["models"]) == 2
    assert len(found.origin["observed"]) == 2
    with pytest.raises(ValueError, match="twice"):
        observe([alone[0], alone[0]])
    (embedded,) = recorded("embeddings", tmp_path, {"teacher.models": f"{digits_teacher},{other}"})
    assert "--record.embeddings" in caplog.text
    with pytest.raises(ValueError, match="embeddings"):
        observe([alone[0], embedded])
    _, run = train(tmp_path, {**TINY, "teacher.models": f"{digits_teacher},{other}", "subset.scorer": "teacher_el2n",
                              "subset.selector": "hardest", "subset.keep_fraction": 0.5})  # fmt: skip
    found = score("teacher_el2n", observe(both)).values
    kept = load_subset(run / "subset.json").ids
    assert found[kept].min() >= np.delete(found, kept).max()


def test_rows_do_not_depend_on_the_batch_size(tmp_path, digits_teacher):
    found = []
    for size in (200, 37):
        options = {"teacher.models": str(digits_teacher), "train.batch_size": size}
        found.append(RowRecord(recorded("teacher", tmp_path / str(size), options)[0]))
    for name in found[0].about.columns:
        a, b = (rows.rows(name)[:] for rows in found)
        np.testing.assert_allclose(a, b, rtol=1e-3 if name == "features" else 1e-5, atol=1e-6)


def test_gradients_of_proxies_against_a_loop(tmp_path, images):
    pixels, labels = images
    folders = recorded("gradients", tmp_path, {"record.repeats": 2, "record.epoch": 1})
    norms = observe(folders).read("gradient_norm", 0, 5)
    runs = sorted(path.parent for path in (tmp_path / "records").glob("*/summary.json"))
    assert norms.shape == (5, 2)
    for column, run in zip(norms.T, runs, strict=True):
        built = load_model(run / "checkpoints" / "epoch_0001.safetensors")
        model, inputs = built.model.eval(), Inputs(built.spec)
        for sample in range(5):
            loss = torch.nn.functional.cross_entropy(model(inputs(pixels[sample][None])), labels[sample][None])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            assert column[sample] == pytest.approx(float(sum(g.square().sum() for g in gradients)) ** 0.5, rel=1e-4)


def test_gradients_at_initialisation_need_no_training_and_warn(tmp_path, caplog):
    recorded("gradients", tmp_path, {"record.epoch": 0})
    assert "--record.epoch" in caplog.text
    assert not list((tmp_path / "records").glob("*/summary.json"))


def test_memorization_knows_who_saw_what(tmp_path, images):
    folders = recorded("memorization", tmp_path, {
        "record.repeats": 14, "record.train_fraction": 0.5, "train.epochs": 1, "data.val_fraction": 0.1
    })  # fmt: skip
    runs = [path.parent for path in (tmp_path / "records").glob("digits*/subset.json")]
    parts = [load_subset(run / "subset.json").ids for run in runs]
    assert len({part.tobytes() for part in parts}) == 14
    is_right = np.stack([(outputs(run / WEIGHTS, images[0])[0].argmax(1) == images[1]).numpy() for run in runs], axis=1)
    was_seen = np.stack([np.isin(np.arange(1347), part) for part in parts], axis=1)
    observation = observe(folders)
    for name, expected in counts_of(is_right, was_seen).items():
        expected[~was_seen.any(1)] = np.nan  # the validation part
        np.testing.assert_array_equal(observation.read(name, 0, 1347), expected)
    scores = score("memorization", observation).values
    assert np.isnan(scores).sum() == round(0.1 * 1347)
    assert np.nanmin(scores) >= -1
    assert np.nanmax(scores) <= 1
    for repeats in (2, 5):
        with pytest.raises(ValueError, match=rf"--record\.repeats: {repeats}"):
            recorded("memorization", tmp_path / "few", {"record.repeats": repeats})
    assert not list((tmp_path / "few").rglob("*.safetensors"))


def test_memorization_takes_one_model_after_another_and_goes_on_with_the_next(tmp_path):
    config = config_of(tmp_path, {**TINY, "train.epochs": 1})
    runs = [train(tmp_path, {"train.steps": 2, "subset.keep_fraction": 0.7, "name": f"{n}", "seed": n})[1]
            for n in range(5)]  # fmt: skip
    loaded: list[weakref.ref[Any]] = []
    alive_at_once: list[int] = []
    found: list[Path] = []

    def load(weights: Path) -> Any:
        if len(loaded) == 3 and not found:
            found.append(tmp_path)
            raise RuntimeError("killed")
        gc.collect()
        alive_at_once.append(sum(model() is not None for model in loaded))
        built = load_model(weights)
        loaded.append(weakref.ref(built.model))
        return built

    with restored_surroundings():
        session = open_session(config, make_accelerator("no", [], str(tmp_path)))
        with pytest.raises(RuntimeError, match="killed"):
            record_counts(runs, load, config, session)
        for _ in range(2):  # made, and found
            found.append(record_counts(runs, load, config, session))
            assert len(loaded) == 5  # three before it was killed, and the two others
        elsewhere = config_of(tmp_path / "whole", {**TINY, "train.epochs": 1})
        found.append(record_counts(runs, load, elsewhere, session))
    assert max(alive_at_once) <= 1
    for name in COUNTS:
        np.testing.assert_array_equal(*(RowRecord(folder).rows(name)[:] for folder in found[-2:]))
    assert not list(found[-1].glob(".counts*"))


def test_a_record_is_made_once_gone_on_with_and_checked(tmp_path, digits_teacher, caplog):
    options = {"teacher.models": str(digits_teacher)}
    (folder,) = recorded("embeddings", tmp_path, options)
    shard = folder / "features_00000.npy"
    before = shard.stat().st_mtime_ns, shard.read_bytes()
    assert recorded("embeddings", tmp_path, options) == [folder]
    assert shard.stat().st_mtime_ns == before[0]
    unfinish(folder)
    shard.unlink()
    recorded("embeddings", tmp_path, options)
    assert shard.read_bytes() == before[1]
    content = bytearray(before[1])
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="--remake"):
        recorded("embeddings", tmp_path, options)
    recorded("embeddings", tmp_path, {**options, "remake": True})
    assert shard.read_bytes() == before[1]


def test_shards_are_read_as_one(tmp_path):
    about = About("embeddings", 20_000, {"features": Column(3, "float16"), "norm": Column(0)}, "f", (), {})
    files = RowFiles(tmp_path, about)
    files.create(np.zeros(20_000, dtype=np.int64))
    values = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float16)
    for shard in range(about.shards):
        ids = about.ids(shard)
        files.write(shard, {"features": values[ids], "norm": values[ids, 0]})
    assert about.shards == 3
    rows = RowRecord(tmp_path).rows("features")
    for part in (slice(None), slice(8190, 8195), slice(8192, 16384), slice(19_999, None), slice(5, 5)):
        assert np.array_equal(rows[part], values[part].astype(np.float32))
    (tmp_path / "features_00001.npy").unlink()
    with pytest.raises(ValueError, match="features_00001"):
        rows[:]


ONE_COMMAND = {**TINY, "subset.keep_fraction": 0.5, "subset.selector": "hardest"}


def test_one_command_records_scores_selects_and_trains_and_does_nothing_twice(tmp_path):
    options = {**ONE_COMMAND, "subset.scorer": "el2n", "record.repeats": 2, "record.train.epochs": 1}
    summary, run = train(tmp_path, options)
    (scored,) = (tmp_path / "scores").glob("*/scores.parquet")
    scores = load_scores(scored)
    proxies = [path.parent for path in (tmp_path / "records").glob("*/summary.json")]
    assert len(proxies) == 2
    expected = observe(sorted(proxies)).read("error_norm", 0, 1347)[:, -1].mean(0)
    np.testing.assert_allclose(scores.values, expected, rtol=1e-6)
    kept = load_subset(run / "subset.json").ids
    assert scores.values[kept].min() >= np.delete(scores.values, kept).max()
    # one training of an epoch and one plain pass each
    steps = 1347 // 200
    assert summary["cost"]["observation"]["forward_samples"] == 2 * (steps * 200 + 1347)
    assert summary["inputs"]["scores"]["hash"] == scores.hash
    tree = said_by(["show", run])[1]
    assert "scores el2n" in tree
    assert all(proxy.name in tree for proxy in proxies)
    chosen = json.loads((run / "subset.json").read_text())["chosen"]
    assert (chosen["scorer"], chosen["hard"]) == ("el2n", "high")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name not in (".lock",)}
    assert train(tmp_path, options)[1] == run
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name not in (".lock",)} == before


def test_a_teacher_that_is_trained_here_is_observed_on_the_way(tmp_path):
    options = {**ONE_COMMAND, "subset.scorer": "aum", "teacher.models": "mlp_64", "baseline": True}
    summary, run = train(tmp_path, options)
    assert not (tmp_path / "records").exists()
    assert summary["cost"]["observation"] == {"seconds": 0, "forward_samples": 0, "backward_samples": 0}
    assert len(list((tmp_path / "teachers").glob("*/dynamics"))) == 1
    (scored,) = (tmp_path / "scores").glob("*/scores.parquet")
    scores = load_scores(scored)
    assert scores.origin["view"] == "training"
    kept = load_subset(run / "subset.json").ids
    assert scores.values[kept].max() <= np.delete(scores.values, kept).min()  # a low margin is hard
    subsets = {path.read_text() for path in tmp_path.glob("*/subset.json")}
    assert len(subsets) == 1  # the baseline has no teacher, and keeps the same samples


def test_scores_from_a_file_and_turned_around(tmp_path):
    train(tmp_path, {**ONE_COMMAND, "subset.scorer": "loss", "name": "first"})
    (scored,) = (tmp_path / "scores").glob("*/scores.parquet")
    _, again = train(tmp_path, {**ONE_COMMAND, "subset.scores": str(scored), "name": "second"})
    _, turned = train(tmp_path, {**ONE_COMMAND, "subset.scores": str(scored), "subset.hard": "low", "name": "third"})
    first = load_subset(tmp_path / "first" / "subset.json").ids
    assert np.array_equal(first, load_subset(again / "subset.json").ids)
    scores = load_scores(scored).values
    assert scores[load_subset(turned / "subset.json").ids].max() <= np.median(scores)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"subset.selector": "hardest"}, ["--subset.selector", "el2n", "--subset.scores"]),
        ({"subset.selector": "hardest", "subset.scorer": "el3n"}, ["--subset.scorer", "el2n"]),
        ({"subset.selector": "hardest", "subset.scorer": "el2n(epok=1)"}, ["--subset.scorer", "epoch"]),
        ({"subset.scorer": "el2n", "subset.file": __file__}, ["--subset.scorer", "--subset.file"]),
        ({"subset.selector": "hardest", "subset.scorer": "el2n", "subset.scores": "x"}, ["--subset.scores"]),
        ({"subset.selector": "hardest", "subset.scores": "nowhere.parquet"}, ["nowhere.parquet"]),
        ({"subset.selector": "hardest", "subset.scorer": "teacher_el2n"}, ["--teacher.models"]),
        (
            {"subset.selector": "hardest", "subset.scorer": "el2n", "record.source": "teacher"},
            ["--record.source", "proxy"],
        ),
        ({"subset.selector": "hardest", "subset.scorer": "el2n", "train.batch_size": 0}, ["--train.batch_size"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(options, named, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        train(tmp_path, {**TINY, **options})
    assert all(word in str(refused.value) for word in named), refused.value
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_epoch_that_was_not_recorded_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--subset\.scorer: .*epochs 1 to 2"):
        train(tmp_path, {**ONE_COMMAND, "subset.scorer": "el2n(epoch=20)"})


def test_options_without_effect_are_said(tmp_path, caplog):
    train(tmp_path, {**TINY, "train.epochs": 1, "subset.scorer": "el2n"})
    assert "--subset.scorer" in caplog.text
    assert not (tmp_path / "records").exists()


def test_the_commands(tmp_path):
    words = [f"--{name}={value}" for name, value in {
        "data.dataset": "digits", "data.augment": "crop(1)", "student.model": "mlp_64", "train.epochs": 1,
        "train.batch_size": 200, "train.precision": "no", "output": tmp_path}.items()]  # fmt: skip
    status, folder, complaints = said_by(["record", "dynamics", *words])
    assert status == 0, complaints
    run = only_run(tmp_path / "records")
    assert folder.strip().endswith(run.name)
    status, table, complaints = said_by(["score", "el2n", "forgetting", "--from", run, "--output", tmp_path / "scores"])
    assert status == 0, complaints
    assert "forgetting" in table
    assert {Path(line) for line in table.splitlines()[-2:]} == score_paths(tmp_path)  # whole, however long they are
    for wrong, named in [
        (["record", "dynamic", *words], "dynamics"),
        (["score", "el2m", "--from", run], "el2n"),
        (["score", "prototypes", "--from", run], "embeddings"),
        (["score", "el2n", "--from", tmp_path / "scores"], "kdprune record"),
    ]:
        status, _, complaints = said_by(wrong)
        assert status == 2
        assert named in complaints


# --- nothing stale ----------------------------------------------------------------------------------------------------


def score_paths(output: Path) -> set[Path]:
    return set((output / "scores").glob("*/scores.parquet"))


def test_scores_are_of_what_was_asked_for(tmp_path):
    """Each change of what scores depend on makes other ones; what they do not depend on makes none."""
    base = {**ONE_COMMAND, "subset.scorer": "el2n(epoch=1)"}
    train(tmp_path, base)
    known = score_paths(tmp_path)
    assert len(known) == 1
    for more in (
        {"subset.scorer": "el2n(epoch=2)"},
        {"record.view": "training"},
        {"record.train.lr": 0.01},
        {"record.repeats": 2},
        {"seed": 1},
        {"subset.scorer": "random"},
        {"subset.scorer": "random", "seeds.subset": 5},
    ):
        train(tmp_path, {**base, **more})
        new = score_paths(tmp_path)
        assert len(new) == len(known) + 1, more
        known = new
    for same in (
        {"subset.keep_fraction": 0.3},
        {"subset.selector": "easiest"},
        {"train.lr": 0.01, "record.train.lr": 0.05},
    ):
        train(tmp_path, {**base, **same})
        assert score_paths(tmp_path) == known, same


def test_another_model_of_the_same_name_is_recorded_anew(tmp_path):
    """Two runs of one architecture: what is recorded goes by their weights, not by what they are called."""
    for seed in (1, 2):
        train(tmp_path, {"name": f"run{seed}", "seed": seed})
    folders = [
        recorded("embeddings", tmp_path, {"record.embeddings": str(tmp_path / f"run{seed}")})[0] for seed in (1, 2, 1)
    ]
    assert folders[0] == folders[2] != folders[1]
    one, other = (RowRecord(folder).rows("features")[:] for folder in folders[:2])
    assert np.abs(one - other).max() > 0.1


def test_a_base_of_scores_is_part_of_what_starts_from_it(tmp_path):
    train(tmp_path, {**ONE_COMMAND, "subset.scorer": "loss"})
    (first,) = score_paths(tmp_path)
    scores = load_scores(first)
    from dataclasses import replace

    from kdprune.pipeline.score import score_file

    (folder,) = recorded("embeddings", tmp_path, {})
    observation = observe([folder])
    bases = [scores, replace(scores, values=scores.values + np.arange(len(scores.values))), replace(scores, hard="low")]
    files = {score_file("d2", observation, tmp_path / "scores", base=base) for base in bases}
    assert len(files) == 3


def test_a_proxy_of_another_view_is_another_record(tmp_path):
    views = []
    for view in ("plain", "training", "plain"):
        (folder,) = recorded("dynamics", tmp_path, {"record.view": view})
        views.append((folder, observe([folder]).origin["view"]))
    assert [view for _, view in views] == ["plain", "training", "plain"]
    assert views[0] == views[2] != views[1]


def test_a_finished_run_without_the_record_that_is_asked_for_says_so(tmp_path, caplog):
    train(tmp_path, {**TINY, "train.record": "training"})
    train(tmp_path, {**TINY, "train.record": "plain"})
    assert "--train.record: plain given" in caplog.text


def test_a_damaged_record_is_not_scored(tmp_path):
    (folder,) = recorded("dynamics", tmp_path, {})
    path = folder / "dynamics" / "epoch_0002.f16"
    content = bytearray(path.read_bytes())
    content[50] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="epoch_0002"):
        observe([folder])
    status, _, complaints = said_by(["score", "el2n", "--from", folder, "--output", tmp_path / "scores"])
    assert status == 2
    assert "epoch_0002" in complaints
    assert not (tmp_path / "scores").exists() or not list((tmp_path / "scores").iterdir())


def test_a_record_given_twice_is_no_repeat(tmp_path):
    (folder,) = recorded("dynamics", tmp_path, {})
    with pytest.raises(ValueError, match="twice"):
        observe([folder, folder])


def test_proxies_are_meant_where_something_is_said_of_them(tmp_path):
    """With a teacher that is trained here, auto observes it, unless options say how proxies are to be."""
    options = {"teacher.models": "mlp_64", "record.repeats": 2, "record.train.epochs": 1}
    folders = recorded("dynamics", tmp_path, options)
    assert [folder.parent.name for folder in folders] == ["records", "records"]
    assert not (tmp_path / "teachers").exists()
    folders = recorded("dynamics", tmp_path, {"teacher.models": "mlp_64"})
    assert [folder.parent.name for folder in folders] == ["teachers"]


@pytest.mark.parametrize("steps", [22, 7, 1, 50])
def test_plain_records_of_any_number_of_steps(steps, tmp_path):
    """The last epoch may be begun within the step that ends the one before."""
    settings = {"train.steps": steps, "train.batch_size": 64, "train.record": "plain"}
    _, run = train(tmp_path, settings)
    with open(run / "metrics.csv") as file:
        assert observe([run]).origin["epochs"] == len(file.readlines()) - 1


def test_a_batch_of_several_epochs_is_recorded_at_its_end(tmp_path):
    settings = {"train.steps": 4, "train.batch_size": 64, "train.record": "plain", "subset.keep_fraction": 0.02}
    _, run = train(tmp_path, settings)
    assert not observe([run]).read("loss", 0, 1347).isnan().any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"subset.scorer": "forgetting(never_learned='foo')"}, "never_learned"),
        ({"subset.scorer": "dual(window=10)"}, "window"),
        ({"subset.scorer": "el2n", "subset.selector": "window(start=0.9)"}, "window"),
        ({"subset.scorer": "el2n", "subset.selector": "beta"}, "mean_probability"),
    ],
)
def test_arguments_are_refused_before_anything_is_trained(options, named, tmp_path):
    for more in ({}, {"teacher.models": "mlp_64"}):
        with pytest.raises(ValueError, match=named):
            train(tmp_path, {**ONE_COMMAND, **options, **more})
    assert not list(tmp_path.rglob("*.safetensors"))


def images_without_labels(folder: Path, count: int = 30) -> str:
    from PIL import Image

    numbers = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for n in range(count):
        Image.fromarray(numbers.integers(256, size=(8, 8), dtype=np.uint8)).save(folder / f"{n}.png")
    return str(folder)


def test_embeddings_need_neither_labels_nor_the_classes_of_the_model(tmp_path, digits_teacher):
    """Of images that nothing is known of, and by a model that knows other classes than the data has."""
    unlabelled = images_without_labels(tmp_path / "images")
    options = {"data.dataset": unlabelled, "record.embeddings": str(digits_teacher)}
    observation = observe(recorded("embeddings", tmp_path, options))
    assert len(observation.classes) == 0
    assert (observation.labels == -1).all()
    assert np.isfinite(score("prototypes(clusters=3)", observation).values).all()
    with pytest.raises(ValueError, match=r"--teacher\.models"):
        recorded("teacher", tmp_path, {"data.dataset": unlabelled})
    for name in ("train/a", "train/b", "val/a", "val/b"):
        images_without_labels(tmp_path / "two" / name, 5)
    of_two = {"data.dataset": str(tmp_path / "two"), "record.embeddings": str(digits_teacher)}
    assert observe(recorded("embeddings", tmp_path, of_two)).classes == ("a", "b")


def test_a_proxy_that_keeps_a_snapshot_is_the_same_proxy(tmp_path, caplog):
    """Recorded once, whoever asks first; what was not kept is trained again in its place, and the log says why."""

    def proxies() -> list[Path]:
        return [path.parent for path in (tmp_path / "records").glob("digits*/summary.json")]

    recorded("gradients", tmp_path, {"record.epoch": 1})
    (run,) = proxies()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    recorded("dynamics", tmp_path, {})
    recorded("gradients", tmp_path, {"record.epoch": 1})
    assert proxies() == [run]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    weights = (run / "student.safetensors").read_bytes()
    with caplog.at_level(logging.INFO, "kdprune"):
        recorded("gradients", tmp_path, {"record.epoch": 2})
    assert proxies() == [run]
    assert sorted(snapshots(run)) == ["1", "2"]
    assert (run / "student.safetensors").read_bytes() == weights
    trained = (run / "summary.json").stat().st_mtime_ns
    for epoch in (1, 2):
        recorded("gradients", tmp_path, {"record.epoch": epoch})
    assert (run / "summary.json").stat().st_mtime_ns == trained


def test_a_run_that_goes_on_lacks_no_snapshot(tmp_path):
    """It was not asked for it before it was stopped, and has passed it since."""
    settings = {**TINY, "train.epochs": 3, "name": "run"}
    with pytest.raises(Interrupted):
        train(tmp_path, settings, StopIn(10))
    asked = {"train.save_epochs": [1, 2], "train.save_steps": [3]}
    _, run = train(tmp_path, {**settings, **asked})
    _, whole = train(tmp_path / "whole", {**settings, **asked})
    assert sorted(snapshots(run)) == ["1", "2", "step3"]
    for name in ("1", "2", "step3"):
        assert snapshots(run)[name].read_bytes() == snapshots(whole)[name].read_bytes()
    assert (run / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


def test_an_epoch_beyond_the_proxys_is_named_by_its_option(tmp_path):
    with pytest.raises(ValueError, match=r"^--record\.epoch or .*: 9 given.* 1 to 2"):
        recorded("gradients", tmp_path, {"record.epoch": 9})


def test_a_teacher_says_what_needs_no_labels_of_images_without(tmp_path, digits_teacher):
    unlabelled = images_without_labels(tmp_path / "images")
    options = {
        "data.dataset": unlabelled, "teacher.models": str(digits_teacher), "distill.alpha": 1.0,
        "subset.selector": "hardest", "subset.keep_fraction": 0.5, "train.steps": 1, "train.batch_size": 8,
    }  # fmt: skip
    summary, _ = train(tmp_path / "runs", {**options, "subset.scorer": "teacher_entropy"})
    assert summary["kept"] == 15
    with pytest.raises(ValueError, match="needs labels"):
        train(tmp_path / "runs", {**options, "subset.scorer": "teacher_el2n"})
