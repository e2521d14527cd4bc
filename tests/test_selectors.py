"""The contract of all selectors, built in or not: run over whatever is registered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune import registry
from kdprune.selectors.random import largest_remainder

NAMES = registry.names("selectors")


@st.composite
def requests(draw):
    """Labels of a training set, those of its samples that may be chosen, and how many are wanted."""
    labels = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=80)), dtype=np.int64)
    allowed = draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    candidates = np.flatnonzero(allowed) if any(allowed) else np.arange(len(labels))
    return candidates, labels, draw(st.integers(1, len(candidates)))


@pytest.mark.parametrize("name", NAMES)
@given(requests(), st.integers(0, 2**31), st.booleans())
def test_a_selector_keeps_its_contract(name, request_, seed, balanced):
    candidates, labels, count = request_
    select = registry.get("selectors", name)
    ids = select(candidates, labels, count, seed, balanced=balanced)
    assert ids.dtype == np.int64
    assert len(ids) == count
    assert (np.diff(ids) > 0).all()
    assert np.isin(ids, candidates).all()
    np.testing.assert_array_equal(ids, select(candidates, labels, count, seed, balanced=balanced))
    if balanced:
        classes, sizes = np.unique(labels[candidates], return_counts=True)
        kept = [(labels[ids] == label).sum() for label in classes]
        np.testing.assert_array_equal(kept, largest_remainder(sizes, count))
