"""The validation part of a training set."""

import hashlib
import json

import numpy as np
import pytest
from helpers import metrics, train
from hypothesis import given
from hypothesis import strategies as st

from kdprune.config import DataConfig
from kdprune.data.dataset import open_data
from kdprune.data.validation import validation_ids

labellings = st.lists(st.integers(-1, 6), min_size=2, max_size=120).map(np.array)
fractions = st.floats(0.001, 0.999)


@given(labellings, fractions, st.integers(0, 100))
def test_the_part_is_as_large_as_asked_and_every_class_has_its_share(labels, fraction, seed):
    ids = validation_ids(labels, fraction, seed)
    assert ids.dtype == np.int64
    assert (np.diff(ids) > 0).all()
    assert len(ids) == min(max(1, round(fraction * len(labels))), len(labels) - 1)
    singles = (np.unique(labels, return_counts=True)[1] == 1).sum()  # they are trained on, and others stand in
    for label in np.unique(labels):
        share = len(ids) / len(labels) * (labels == label).sum()
        assert abs((labels[ids] == label).sum() - share) < 1 + singles


@given(labellings, fractions, st.integers(0, 100), st.randoms())
def test_the_part_is_a_function_of_the_seed(labels, fraction, seed, random):
    assert np.array_equal(validation_ids(labels, fraction, seed), validation_ids(labels.copy(), fraction, seed))
    assert len(validation_ids(labels, 0.0, seed)) == 0


def test_seeds_give_different_parts_and_places_are_equally_likely():
    labels = np.zeros(50, dtype=int)
    counts = sum(np.bincount(validation_ids(labels, 0.2, seed), minlength=50) for seed in range(500))
    assert (abs(counts - 100) < 6 * (500 * 0.2 * 0.8) ** 0.5).all()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"--data.val_fraction: .* allowed is \[0, 1\)"):
        validation_ids(np.zeros(9), fraction, 0)


def test_of_one_sample_nothing_can_be_set_aside():
    with pytest.raises(ValueError, match=r"--data.val_fraction"):
        validation_ids(np.zeros(1), 0.5, 0)


@pytest.fixture(scope="module")
def run_with_validation(tmp_path_factory):
    """A student and a born-again teacher of two generations, each trained on what is left."""
    return train(
        tmp_path_factory.mktemp("runs"),
        {
            "train.steps": 3, "data.val_fraction": 0.2, "seeds.subset": 7, "teacher.models": "mlp_64",
            "teacher.generations": 2, "teacher.train.steps": 2,
        },
    )  # fmt: skip


def held_out(seed: int = 7) -> np.ndarray:
    return open_data(DataConfig(val_fraction=0.2), seed, progress=False).validation


def test_neither_a_student_nor_its_teachers_are_trained_on_validation_samples(run_with_validation):
    summary, run = run_with_validation
    subsets = [json.loads(path.read_text())["ids"] for path in run.parent.rglob("subset.json")]
    assert [len(ids) for ids in subsets] == [1347 - 269] * 3
    assert not set(held_out().tolist()) & {i for ids in subsets for i in ids}
    assert summary["val_top1"] * 269 == pytest.approx(round(summary["val_top1"] * 269))
    assert summary["val_top1"] == float(metrics(run)[-1]["val_top1"])


def test_another_validation_part_is_another_run(run_with_validation):
    _, run = run_with_validation
    key = json.loads((run / "artefact.json").read_text())["key"]
    assert key["data"]["validation"] == hashlib.sha256(held_out().tobytes()).hexdigest()


def test_a_subset_file_that_keeps_validation_samples_is_refused(tmp_path):
    _, run = train(tmp_path, {"train.steps": 2})
    settings = {"train.steps": 2, "subset.file": str(run / "subset.json"), "data.val_fraction": 0.2}
    with pytest.raises(ValueError, match=r"--subset.file: .* keeps 269 samples that --data.val_fraction"):
        train(tmp_path, settings)


def test_small_classes_keep_a_sample_and_the_seed_decides_which_give_one():
    labels = np.repeat(np.arange(100), 2)
    given = [set(labels[validation_ids(labels, 0.1, seed)]) for seed in range(8)]
    assert all(len(classes) == 20 for classes in given)  # one of two
    assert len(set.union(*given)) > 60
    single = np.append(np.arange(50), np.full(50, 50))
    assert set(single[validation_ids(single, 0.2, 0)]) == {50}
