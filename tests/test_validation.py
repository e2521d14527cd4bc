"""The validation part of a training set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data.validation import validation_ids

labellings = st.lists(st.integers(-1, 6), min_size=2, max_size=120).map(np.array)
fractions = st.floats(0.001, 0.999)


@given(labellings, fractions, st.integers(0, 100))
def test_the_part_is_as_large_as_asked_and_every_class_has_its_share(labels, fraction, seed):
    ids = validation_ids(labels, fraction, seed)
    assert ids.dtype == np.int64
    assert (np.diff(ids) > 0).all()
    assert len(ids) == min(max(1, round(fraction * len(labels))), len(labels) - 1)
    for label in np.unique(labels):
        share = len(ids) / len(labels) * (labels == label).sum()
        assert abs((labels[ids] == label).sum() - share) < 1


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
