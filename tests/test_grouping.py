"""The counting sort of very many samples, against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data import grouping
from kdprune.data.grouping import dealt, grouped


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@given(st.lists(st.integers(0, 9), max_size=200), st.integers(1, 50))
def test_classes_in_blocks_are_those_of_a_stable_sort(dtype, classes, block):
    classes_M = np.array(classes, dtype=dtype)
    values_M = np.arange(len(classes)) * 7 - 5
    order = np.argsort(classes_M, kind="stable")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "SORTED", block)
        groups = grouped(classes_M, 12)
        dealt_M, ends = dealt(values_M, classes_M, 12)
    assert [group.tolist() for group in groups] == [np.flatnonzero(classes_M == c).tolist() for c in range(12)]
    assert dealt_M.tolist() == values_M[order].tolist()
    assert ends.tolist() == np.cumsum(np.bincount(classes_M, minlength=12)).tolist()
