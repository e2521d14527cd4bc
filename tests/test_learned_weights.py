"""Weights of an ensemble learned on samples that no teacher was trained on; born-again generations."""

import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import config_of, train, unfinish
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from kdprune.checks import check
from kdprune.models.build import load_model
from kdprune.models.hashing import weights_hash
from kdprune.pipeline import job
from kdprune.pipeline.ensemble_weights import _seen_before
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.session import open_session
from kdprune.pipeline.teachers import TeacherRequest
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import read_config
from kdprune.teachers.ensemble import max_likelihood_weights


def log_p(teachers, samples, seed):
    return torch.from_numpy(np.log(np.random.default_rng(seed).beta(0.7, 0.7, (teachers, samples)) + 1e-9))


def likelihood(weights, log_p_KN):
    return float(np.log(np.asarray(weights) @ np.exp(log_p_KN.numpy())).mean())


@given(st.integers(2, 4), st.integers(1, 200), st.integers(0, 1000))
def test_no_other_weights_make_the_labels_likelier(teachers, samples, seed):
    """Against a general constrained optimizer (SLSQP) on the same concave function."""
    p = log_p(teachers, samples, seed)
    ours = max_likelihood_weights(p, tolerance=1e-9)
    assert math.isclose(sum(ours), 1, abs_tol=1e-9)
    assert min(ours) >= 0
    other = minimize(
        lambda w: -likelihood(w, p), np.full(teachers, 1 / teachers), bounds=[(0, 1)] * teachers, method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-12},
    )  # fmt: skip
    assert likelihood(ours, p) >= likelihood(np.clip(other.x, 0, 1) / other.x.clip(0, 1).sum(), p) - 1e-4


def test_equal_teachers_keep_equal_weights_and_a_useless_one_loses_its_own():
    p = log_p(1, 100, 0)
    assert max_likelihood_weights(p.expand(3, 100)) == pytest.approx([1 / 3] * 3)
    assert max_likelihood_weights(torch.cat([p, torch.full((1, 100), -60.0, dtype=p.dtype)])) == pytest.approx(
        [1, 0], abs=1e-6
    )


def test_a_teacher_that_is_certain_and_wrong_does_no_harm():
    p = torch.tensor([[-900.0, -0.1], [-0.5, -0.5]], dtype=torch.float64)
    assert max_likelihood_weights(p)[1] > 0.5


ENSEMBLE = {
    "teacher.models": ["mlp_64", "cifar_resnet8"], "teacher.weights": "learned", "teacher.train_fraction": 0.8,
    "train.steps": 8, "teacher.train.epochs": 3,
}  # fmt: skip


def test_the_better_teacher_counts_more_and_the_summary_says_how_much(tmp_path):
    summary, run = train(tmp_path, ENSEMBLE)
    worse, better = sorted(summary["teacher"], key=lambda teacher: teacher["test_top1"])
    assert worse["test_top1"] < better["test_top1"] - 0.1
    assert 0 <= worse["weight"] < 0.3 < better["weight"]
    assert worse["weight"] + better["weight"] == pytest.approx(1)
    unfinish(run)
    again, _ = train(tmp_path, ENSEMBLE)
    assert [teacher["weight"] for teacher in again["teacher"]] == [teacher["weight"] for teacher in summary["teacher"]]
    assert again["test_loss"] == summary["test_loss"]


def test_each_teacher_answers_at_its_own_temperature(tmp_path):
    """Twice the same network: at one temperature they are equals, and where one is made blunt they are not."""
    equal, _ = train(tmp_path, {**ENSEMBLE, "teacher.models": ["cifar_resnet8"] * 2})
    assert [teacher["weight"] for teacher in equal["teacher"]] == pytest.approx([0.5, 0.5])
    blunt = {**ENSEMBLE, "teacher.models": ["cifar_resnet8"] * 2, "teacher.temperatures": [4.0, 400.0]}
    sharp, other = (teacher["weight"] for teacher in train(tmp_path, blunt)[0]["teacher"])
    assert abs(sharp - other) > 0.2


def test_the_judges_are_training_samples_that_no_teacher_saw(tmp_path, monkeypatch):
    found = []
    original = job.unseen
    monkeypatch.setattr(job, "unseen", lambda *args: found.append(original(*args)) or found[-1])
    train(tmp_path, {**ENSEMBLE, "train.steps": 1, "teacher.train.epochs": 1, "teacher.generations": 2})
    (ids,) = found
    seen = [np.array(read(path)["ids"]) for path in (tmp_path / "teachers").glob("*/subset.json")]
    assert len(seen) == 4  # two teachers, two generations
    assert len(ids) > 0
    assert np.array_equal(ids, np.setdiff1d(np.arange(1347), np.concatenate(seen)))


def test_without_unseen_samples_nothing_is_trained(tmp_path, digits_teacher):
    with pytest.raises(ValueError, match=r"with mlp_64 there are none; allowed are teachers of a part"):
        train(tmp_path, {**ENSEMBLE, "teacher.train_fraction": 1.0})
    with pytest.raises(ValueError, match="needs training samples that no teacher was trained on"):
        train(tmp_path, {**ENSEMBLE, "teacher.models": ["cifar_resnet8", f"{digits_teacher}@1"]})
    assert not (tmp_path / "teachers").exists()


def test_a_file_of_unknown_training_is_taken_to_have_seen_nothing_and_that_is_said(tmp_path, digits_teacher, caplog):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((digits_teacher / "student.safetensors").read_bytes())
    logging.getLogger("kdprune").addHandler(caplog.handler)
    settings = {**ENSEMBLE, "train.steps": 1, "teacher.train.epochs": 1}
    train(tmp_path, {**settings, "teacher.models": [str(alone), "mlp_64"]})
    assert "alone.safetensors is taken to have seen none of the training samples" in caplog.text
    bare = tmp_path / "bare.pth"
    torch.save(load_model(alone).model.state_dict(), bare)
    files = {"teacher.models": ["cifar_resnet8"] * 2, "teacher.checkpoints": [str(bare), str(alone)]}
    summary, _ = train(tmp_path, {**settings, **files})
    assert "cifar_resnet8 is taken to have seen none" in caplog.text
    assert [teacher["weight"] for teacher in summary["teacher"]] == pytest.approx([0.5, 0.5])


def test_a_file_in_a_run_directory_says_what_it_was_trained_on(tmp_path, digits_teacher):
    files = {
        "teacher.models": ["cifar_resnet8"] * 2,
        "teacher.checkpoints": [f"{digits_teacher}/student.safetensors"] * 2,
    }
    with pytest.raises(ValueError, match="with cifar_resnet8 there are none"):
        train(tmp_path, {**ENSEMBLE, **files})


def test_what_a_teachers_own_teacher_saw_is_not_unseen(tmp_path):
    """One tenth taught by nine others: nothing is left, or a tenth if that teacher is not counted."""
    part = {"teacher.models": "mlp_64", "teacher.train_fraction": 0.9, "subset.keep_fraction": 0.1, "train.steps": 2}
    _, student = train(tmp_path, part)
    config = config_of(tmp_path)
    data = open_session(config, make_accelerator("no", [], str(tmp_path))).data
    request = TeacherRequest(str(student), None, True)
    seen = np.unique(np.concatenate(_seen_before(data, request)))
    assert len(seen) == 1212  # nine tenths of 1,347: a smaller subset of a seed is part of a larger one
    (teacher,) = (tmp_path / "teachers").iterdir()
    shutil.rmtree(teacher)
    assert len(np.concatenate(_seen_before(data, request))) == 135


def test_one_teacher_has_no_weights_to_learn(tmp_path):
    with pytest.raises(ValueError, match="learned given for 1 teachers, it needs two or more"):
        check(config_of(tmp_path, {"teacher.models": "mlp_64", "teacher.weights": "learned"}))


def test_each_generation_is_taught_by_the_one_before(tmp_path):
    options = {"teacher.models": "mlp_64", "teacher.generations": 3, "train.steps": 4, "distill.temperature": 2.0}
    summary, _ = train(tmp_path, options)
    recipe, sources, seeds = config_of(tmp_path, options), [], []
    while recipe.teacher.models:
        recipe = teacher_recipe(recipe, "mlp_64")
        (source,) = (path for path in (tmp_path / "teachers").iterdir() if read_config(path) == recipe)
        sources.append(source)
        seeds.append(recipe.seed)
    assert seeds == [2, 1, 0]
    assert summary["teacher"][0]["source"] == str(sources[0])
    assert all((run / "summary.json").exists() for run in sources)
    assert len(list((tmp_path / "teachers").iterdir())) == 3
    taught = [read(run / "summary.json") for run in sources]
    assert [len(one["teacher"]) for one in taught] == [1, 1, 0]
    assert taught[0]["teacher"][0]["weights_hash"] == weights_of(sources[1])
    steps = 64 * 4
    assert summary["cost"]["teacher_training"]["backward_samples"] == 3 * steps


def read(path):
    return json.loads(path.read_text())


def weights_of(run):
    return weights_hash(load_model(run / "student.safetensors").model.state_dict())
