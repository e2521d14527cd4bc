"""Who sees which sample when."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data.counter import key, permutation
from kdprune.data.stream import Order, Stream, total_steps


@st.composite
def streams(draw):
    ids = np.array(sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=40))))
    parts, size = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    return ids, parts * size, parts, draw(st.integers(0, 5))


def seen(stream: Stream, samples: int) -> tuple[list[int], list[int]]:
    """Ids and epochs of at least the first `samples` samples."""
    batches = [stream.batch(step) for step in range(-(-samples // stream.batch_size))]
    ids, epochs = (torch.cat(column).tolist() for column in zip(*batches, strict=True))
    return ids[:samples], epochs[:samples]


@given(streams())
def test_each_epoch_sees_each_kept_sample_once(case):
    ids, batch_size, _, seed = case
    order, epochs = seen(Stream(ids, batch_size, seed), 3 * len(ids))
    assert epochs == np.repeat([0, 1, 2], len(ids)).tolist()
    for epoch in np.split(np.array(order), 3):
        assert sorted(epoch) == ids.tolist()


@given(streams(), st.integers(0, 30))
def test_the_parts_of_all_processes_are_the_batch_of_one(case, step):
    ids, batch_size, parts, seed = case
    whole = Stream(ids, batch_size, seed).batch(step)
    pieces = [Stream(ids, batch_size, seed).batch(step, part, parts) for part in range(parts)]
    for index in range(2):
        assert torch.equal(torch.cat([piece[index] for piece in pieces]), whole[index])


@given(streams(), st.permutations(range(12)))
def test_a_batch_does_not_depend_on_what_was_asked_before(case, order):
    ids, batch_size, _, seed = case
    used = Stream(ids, batch_size, seed)
    for step in order:
        fresh = Stream(ids, batch_size, seed).batch(step)
        assert all(map(torch.equal, used.batch(step), fresh))


@given(streams())
def test_the_end_of_an_epoch_is_the_first_step_after_its_last_sample(case):
    ids, batch_size, _, seed = case
    stream = Stream(ids, batch_size, seed)
    for epoch in range(4):
        end = stream.epoch_end(epoch)
        assert (end - 1) * batch_size < (epoch + 1) * len(ids) <= end * batch_size


@given(streams(), st.integers(0, 60))
def test_the_epoch_of_a_step_is_the_first_that_has_not_ended(case, step):
    ids, batch_size, _, seed = case
    stream: Order = Stream(ids, batch_size, seed)
    first = next(epoch for epoch in range(step * batch_size + 2) if stream.epoch_end(epoch) > step)
    assert stream.epoch_of(step) == first


def test_roles_have_orders_of_their_own_and_all_samples_count_alike():
    ids = np.arange(100)
    for role, word in (("student", "order"), ("teacher", "teacher order")):
        stream = Stream(ids, 50, 4, role)
        order = permutation(key(4, word, 0), torch.from_numpy(ids))
        assert torch.equal(torch.cat([stream.batch(step)[0] for step in range(2)]), order)
        assert stream.weights(*stream.batch(0)) is None


@given(streams(), st.data())
def test_a_smaller_subset_keeps_the_order_of_its_samples(case, data):
    ids, batch_size, _, seed = case
    kept = np.array(sorted(data.draw(st.sets(st.sampled_from(ids.tolist()), min_size=1))))
    full, _ = seen(Stream(ids, batch_size, seed), len(ids))
    part, _ = seen(Stream(kept, batch_size, seed), len(kept))
    assert part == [i for i in full if i in set(kept.tolist())]


def test_epochs_and_seeds_have_different_orders():
    ids = np.arange(100)
    first, _ = seen(Stream(ids, 10, 0), 200)
    other, _ = seen(Stream(ids, 10, 1), 100)
    assert first[:100] != first[100:]
    assert first[:100] != other


@given(
    st.integers(1, 300), st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 2048), st.integers(1, 10_000)
)
def test_total_steps(epochs, kept, total, batch_size, steps):
    kept = min(kept, total)
    subset = total_steps(epochs, None, "subset", kept, total, batch_size)
    full = total_steps(epochs, None, "full", kept, total, batch_size)
    assert subset == max(1, epochs * kept // batch_size)
    assert full == max(1, epochs * total // batch_size)
    assert full == total_steps(epochs, None, "full", 1, total, batch_size)  # the same for every subset
    assert full == total_steps(epochs, None, "subset", total, total, batch_size)
    assert total_steps(epochs, steps, "subset", kept, total, batch_size) == steps


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 5), (1, 10), (0.01, 1)])
def test_a_part_of_an_epoch(epochs, steps):
    assert total_steps(epochs, None, "subset", 100, 1000, 10) == steps
