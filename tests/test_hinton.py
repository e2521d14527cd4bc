"""Hinton et al.'s experiment, on the digits: a student that never saw a 3 (configs/hinton_digits.yaml)."""

import json

import numpy as np
import pytest
from helpers import REPO, plain, said_by

from kdprune.data.sources import open_source

pytestmark = pytest.mark.slow  # the experiment itself takes two trainings of 30 and 40 epochs


def kdprune(*words):
    """Exit status of a command line, and what it says; in this process, which has torch loaded."""
    status, said, complained = said_by(words)
    assert status == 0 or complained
    return status, said or complained


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Directories of the student with soft targets and of the one without."""
    output = tmp_path_factory.mktemp("hinton")
    status, text = kdprune("train", "--config", REPO / "configs/hinton_digits.yaml", "--output", output)
    assert status == 0, text
    (soft,), (hard,) = output.glob("digits-*-kd-*"), output.glob("digits-*-plain-*")
    return soft, hard


def evaluated(run, classes):
    status, text = kdprune("evaluate", run, "--json", "--class_mass", classes)
    assert status == 0, text
    return json.loads(text)


def test_soft_targets_tell_of_a_digit_never_seen_and_the_class_mass_corrects_its_bias(runs, tmp_path):
    soft, hard = (evaluated(run, "missing") for run in runs)
    assert hard["per_class"][3] == 0
    assert soft["per_class"][3] > 0.3

    done = soft["class_mass"]
    assert done["classes"] == [3]
    assert [c for c, offset in enumerate(done["offsets"]) if offset] == [3]
    assert done["offsets"][3] > 0
    assert done["mass_before"][3] < done["mass_wanted"][3]
    assert done["corrected"]["per_class"][3] > soft["per_class"][3]
    assert done["corrected"]["top1"] > soft["top1"] - 0.01  # what it takes from other digits is little
    assert done["corrected"]["per_class"][3] > hard["class_mass"]["corrected"]["per_class"][3] + 0.2

    labels = open_source("digits", "train", tmp_path).labels
    assert done["training_images"] == len(labels)
    np.testing.assert_allclose(done["mass_wanted"], np.bincount(labels) / len(labels))


def test_the_student_without_a_class_has_none_of_it_and_its_teacher_has_all(runs, tmp_path):
    labels = open_source("digits", "train", tmp_path).labels
    for run in runs:
        subset = json.loads((run / "subset.json").read_text())
        assert subset["chosen"]["without_classes"] == [3]
        assert subset["ids"] == np.flatnonzero(labels != 3).tolist()
    teacher = next((runs[0].parent / "teachers").iterdir())
    assert json.loads((teacher / "subset.json").read_text())["kept"] == len(labels)
    settings = (teacher / "config.yaml").read_text()
    assert "augment: crop(1)" in settings
    assert "drop_rate: 0.5" in settings


def test_what_is_printed_names_what_was_used(runs):
    text = plain(kdprune("evaluate", runs[0], "--class_mass", "missing")[1])
    assert "over 1,347 training images (of all classes, kept or not, their labels unused)" in text
    assert "Neither held-out images nor their labels have a part in it." in text
    assert "3 (not in the subset)" in text


def test_all_classes_may_move(runs):
    result = evaluated(runs[0], "all")["class_mass"]
    assert result["classes"] == list(range(10))
    assert all(result["offsets"])


def test_a_run_that_lacks_no_class(runs):
    teacher = next((runs[0].parent / "teachers").iterdir())
    status, text = kdprune("evaluate", teacher, "--class_mass", "missing")
    assert status == 2
    assert "--class_mass: missing given, but the run keeps samples of every class; allowed is all" in text
