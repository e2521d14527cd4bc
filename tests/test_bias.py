"""Offsets by class mass, against root finders and closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from kdprune.data.dataset import Data
from kdprune.data.split import Split
from kdprune.models.spec import InputSpec
from kdprune.passes import class_mass as bias
from kdprune.passes.class_mass import class_frequencies, class_mass_offsets, train_logits

seeds = st.integers(0, 10_000)


def logits_and_target(seed, classes, samples=60, scale=3.0):
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(scale * random.standard_normal((samples, classes)))
    return logits, torch.from_numpy(random.dirichlet(np.full(classes, 2.0)) * 0.98 + 0.02 / classes)


def mass(logits, offsets):
    return (logits.double() + offsets).softmax(1).mean(0)


@given(seeds, st.integers(2, 12), st.sampled_from([0.0, 0.1, 3.0, 40.0]))
def test_afterwards_the_mean_mass_is_the_target(seed, classes, scale):
    logits, target = logits_and_target(seed, classes, scale=scale)
    offsets = class_mass_offsets(logits, target)
    torch.testing.assert_close(mass(logits, offsets), target, atol=1e-7, rtol=0)
    assert abs(float(offsets.sum())) < 1e-9


@given(seeds, st.integers(2, 12), st.data())
def test_only_the_chosen_classes_move(seed, classes, data):
    logits, target = logits_and_target(seed, classes)
    chosen = sorted(data.draw(st.sets(st.integers(0, classes - 1), min_size=1, max_size=classes - 1)))
    offsets = class_mass_offsets(logits, target, chosen)
    others = np.setdiff1d(np.arange(classes), chosen)
    assert (offsets[others] == 0).all()
    torch.testing.assert_close(mass(logits, offsets)[chosen], target[chosen], atol=1e-7, rtol=0)


@given(seeds, st.floats(0.001, 0.999), st.sampled_from([1.0, 10.0, 100.0]))
def test_two_classes_against_a_root_finder(seed, wanted, scale):
    logits, _ = logits_and_target(seed, 2, samples=37, scale=scale)
    odds = (logits[:, 1] - logits[:, 0]).numpy()
    expected = brentq(lambda b: expit(odds + b).mean() - wanted, -3000, 3000, xtol=1e-12)
    offsets = class_mass_offsets(logits, torch.tensor([1 - wanted, wanted]), [1])
    assert offsets[0] == 0
    assert expit(odds + float(offsets[1])).mean() == pytest.approx(wanted, abs=1e-7)
    if scale == 1:  # with sharp predictions the mass is flat between two samples, and many offsets do
        assert float(offsets[1]) == pytest.approx(expected, abs=1e-4)


def test_equal_logits_give_the_logarithm_of_the_odds():
    target = torch.tensor([0.5, 0.3, 0.2])
    offsets = class_mass_offsets(torch.zeros(5, 3), target)
    torch.testing.assert_close(offsets.softmax(0), target.double(), atol=1e-7, rtol=0)
    one = class_mass_offsets(torch.zeros(5, 3), target, [2])
    assert float(one[2]) == pytest.approx(np.log(2 * 0.2 / 0.8), abs=1e-6)


def test_a_class_that_has_hardly_any_mass():
    logits = torch.randn(500, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:, 3] -= 400
    target = torch.full((10,), 0.1, dtype=torch.float64)
    assert mass(logits, class_mass_offsets(logits, target, [3]))[3] == pytest.approx(0.1, abs=1e-7)


def test_nothing_is_changed_where_the_mass_is_right():
    logits, _ = logits_and_target(3, 4)
    assert class_mass_offsets(logits, mass(logits, 0), [1, 2]).abs().max() == 0


def test_low_precision_and_repeated_classes():
    logits, target = logits_and_target(5, 4)
    low = logits.bfloat16()
    offsets = class_mass_offsets(low, target, [2, 2])
    assert offsets.dtype == torch.float64
    assert mass(low, offsets)[2] == pytest.approx(float(target[2]), abs=1e-7)


@pytest.mark.parametrize(
    ("target", "classes", "message"),
    [
        ([0.5, 0.5, 0.0], None, "above 0 that add up to 1"),
        ([0.5, 0.4, 0.3], None, "above 0 that add up to 1"),
        ([0.5, 0.5, 0.0], [2], "above 0 that add up to less than 1"),
        ([0.5, 0.5, 0.0], [0, 1], "add up to less than 1"),
        ([-0.1, 0.6, 0.5], [0], "above 0"),
        ([float("nan"), 0.5, 0.5], [0], "above 0"),
    ],
)
def test_impossible_targets_are_refused(target, classes, message):
    with pytest.raises(ValueError, match=message):
        class_mass_offsets(torch.zeros(4, 3), torch.tensor(target), classes)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_refused(wrong):
    logits = torch.zeros(4, 3)
    logits[1, 2] = wrong
    with pytest.raises(ValueError, match="not finite"):
        class_mass_offsets(logits, torch.full((3,), 1 / 3))


def test_giving_up_is_said():
    logits, target = logits_and_target(0, 5)
    with pytest.raises(ArithmeticError, match=r"still off by .* after 1 Newton steps"):
        class_mass_offsets(logits, target, max_steps=1)


# --- what it is given ------------------------------------------------------------------------------------------------


def data_of(labels, dropped=()):
    labels = np.array(labels)
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    source = SimpleNamespace(labels=labels, spread=lambda n: list(range(len(labels)))[:n])
    train = Split(source, 1, images, np.array(dropped, dtype=int))
    return Data(train, None, "", None, (0.5,), (0.5,), 0)


def test_the_mass_is_taken_over_all_readable_training_images():
    spec = InputSpec(1, 1, (0.5,), (0.5,))
    seen = train_logits(lambda x: x.flatten(1).bfloat16(), data_of([0] * 9, dropped=[4]), spec, Accelerator(cpu=True))
    assert seen.dtype == torch.float32
    assert seen.flatten().tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_frequencies_are_those_of_all_labels(monkeypatch):
    monkeypatch.setattr(Data, "num_classes", 3)
    assert class_frequencies(data_of([0, 0, 1, 0, -1])).tolist() == [0.75, 0.25, 0.0]
    with pytest.raises(ValueError, match="--class_mass: the training set has no labels"):
        class_frequencies(data_of([-1, -1]))


def test_more_images_than_the_limit_are_thinned(monkeypatch):
    monkeypatch.setattr(bias, "IMAGES", 4)
    spec = InputSpec(1, 1, (0.5,), (0.5,))
    assert len(train_logits(lambda x: x.flatten(1).float(), data_of([0] * 9), spec, Accelerator(cpu=True))) == 4
