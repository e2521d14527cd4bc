"""Rows in the order of the ids, from any number of processes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data.place import Place
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.models.spec import InputSpec
from kdprune.passes import predict as module
from kdprune.passes.predict import predict

CPU = torch.device("cpu")
SPEC = InputSpec(3, 4, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def split():
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    source = from_indexable([(image.permute(1, 2, 0).numpy(), 0) for image in images], "mine", "train")
    return Split(source, 3, images, np.array([], dtype=np.int64))


def what(batch):
    """Two numbers that only this sample has, and its id."""
    return torch.stack([batch.images.flatten(1).double().sum(1), batch.images[:, 0, 0, 0].double(), batch.ids], 1)


def predicted(split, ids, world, batch_size):
    """What every process gets: the collective is played by one process after the other."""
    places = [Place(CPU, 0, rank, world) for rank in range(world)]
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "gather", lambda rows: parts.append(rows) or rows.repeat(world, 1))
        for place in places:
            predict(what, split, ids, SPEC, place, batch_size)
        patch.setattr(module, "gather", lambda rows: torch.cat(parts))
        return [predict(what, split, ids, SPEC, place, batch_size) for place in places]


@given(st.integers(2, 5), st.integers(1, 25), st.lists(st.integers(0, 19), min_size=1, max_size=25, unique=True))
def test_any_processes_and_batches_give_the_rows_of_one(split, world, batch_size, ids):
    ids = np.array(ids)
    alone = predict(what, split, ids, SPEC, Place(CPU))
    assert alone[:, 2].tolist() == ids.tolist()
    for rows in predicted(split, ids, world, batch_size):
        assert torch.equal(rows, alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_store_the_rows_are_the_same(split, workers):
    ids = np.array([7, 3, 11, 0])
    decoded = Split(split.source, 3, None, split.unreadable)
    rows = predict(what, decoded, ids, SPEC, Place(CPU, workers), 3)
    assert torch.equal(rows, predict(what, split, ids, SPEC, Place(CPU)))


def test_a_row_may_be_a_number_and_needs_no_gradient(split):
    weight = torch.ones(1, requires_grad=True)
    rows = predict(lambda batch: batch.ids * weight, split, np.array([4, 2]), SPEC, Place(CPU))
    assert rows.tolist() == [4.0, 2.0]
    assert not rows.requires_grad


def test_nothing_to_predict_is_refused(split):
    with pytest.raises(ValueError, match="no samples"):
        predict(what, split, np.array([], dtype=np.int64), SPEC, Place(CPU))
