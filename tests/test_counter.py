"""The counter-based hash, against SplitMix64 written out in Python's integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from kdprune.data import counter
from kdprune.data.counter import BLOCK, bits, hashes, key, mix, permutation, uniform

WORD = 2**64
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

int64s = st.integers(-(2**63), 2**63 - 1)
id_lists = st.lists(st.integers(0, 2**40), min_size=1, max_size=30, unique=True)


def splitmix(x: int) -> int:
    x = (x ^ x >> 30) * MIX_1 % WORD
    x = (x ^ x >> 27) * MIX_2 % WORD
    return x ^ x >> 31


def unmixed(x: int) -> int:
    """The inverse of `splitmix`."""
    x = unshifted(x, 31) * pow(MIX_2, -1, WORD) % WORD
    x = unshifted(x, 27) * pow(MIX_1, -1, WORD) % WORD
    return unshifted(x, 30)


def unshifted(y: int, n: int) -> int:
    """The x whose x ^ x >> n is y."""
    x = y
    for _ in range(64 // n):
        x = y ^ x >> n
    return x


def unsigned(tensor: torch.Tensor) -> list[int]:
    return [value % WORD for value in tensor.tolist()]


@given(st.lists(int64s, min_size=1, max_size=50))
def test_mix_is_splitmix64_and_can_be_undone(values):
    mixed = unsigned(mix(torch.tensor(values)))
    assert mixed == [splitmix(value % WORD) for value in values]
    assert [unmixed(value) for value in mixed] == [value % WORD for value in values]


@given(int64s, int64s, st.integers(0, 2**40))
def test_bits_are_two_rounds_of_splitmix64(key, sample_id, view):
    inner = splitmix((sample_id * GAMMA + key) % WORD)
    expected = splitmix((inner + view * GAMMA) % WORD)
    assert unsigned(bits(key, torch.tensor([sample_id]), torch.tensor([view]))) == [expected]
    assert unsigned(bits(key, torch.tensor([sample_id]), view)) == [expected]


@given(int64s, st.integers(1, 8))
def test_uniform_numbers_are_the_upper_24_bits(start, draws):
    numbers = uniform(torch.tensor([start]), draws)[0].tolist()
    assert numbers == [(splitmix((start + d * GAMMA) % WORD) >> 40) / 2**24 for d in range(1, draws + 1)]


@given(id_lists, st.integers(0, 100), st.randoms())
def test_a_sample_draws_the_same_in_every_batch(ids, view, random):
    views = [view + i % 3 for i in range(len(ids))]
    whole = uniform(bits(7, torch.tensor(ids), torch.tensor(views)), 4)
    order = random.sample(range(len(ids)), random.randint(1, len(ids)))
    part = uniform(bits(7, torch.tensor(ids)[order], torch.tensor(views)[order]), 4)
    assert torch.equal(part, whole[order])


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_numbers_are_uniform_and_neighbours_unrelated(seed):
    n, draws = 40_000, 3
    u = uniform(bits(key(seed, "test"), torch.arange(n), 5), draws).double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    for column in u.T:
        assert kstest(column, "uniform").pvalue > 1e-4
    other_view = uniform(bits(key(seed, "test"), torch.arange(n), 6), 1).double().numpy()
    other_key = uniform(bits(key(seed + 1, "test"), torch.arange(n), 5), 1).double().numpy()
    columns = np.column_stack([u, u[:, 0][np.arange(n) - 1], other_view, other_key])
    correlations = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert abs(correlations).max() < 5 / n**0.5


def test_a_key_depends_on_every_part_and_their_order():
    parts = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), ("a", 0), ("0", "a"), (0, "a", 1)]
    keys = [key(*p) for p in parts]
    assert len(set(keys)) == len(parts)
    assert keys == [key(*p) for p in parts]
    assert all(-(2**63) <= k < 2**63 for k in keys)


@given(id_lists, int64s, st.randoms())
def test_a_permutation_is_one_and_does_not_ask_in_which_order_the_ids_come(ids, key, random):
    order = permutation(key, torch.tensor(ids)).tolist()
    assert sorted(order) == sorted(ids)
    random.shuffle(ids)
    assert permutation(key, torch.tensor(ids)).tolist() == order


@given(id_lists, int64s, st.data())
def test_dropping_ids_leaves_the_order_of_the_others(ids, key, data):
    kept = data.draw(st.sets(st.sampled_from(ids), min_size=1))
    order = permutation(key, torch.tensor(ids)).tolist()
    assert permutation(key, torch.tensor(sorted(kept))).tolist() == [i for i in order if i in kept]


@given(st.lists(int64s, max_size=40), int64s, st.integers(1, 20))
def test_hashes_made_in_blocks_are_the_bits_of_view_0(ids, key, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "BLOCK", block)
        ids_N = torch.tensor(ids, dtype=torch.int64)
        assert torch.equal(hashes(key, ids_N), bits(key, ids_N))
        assert torch.equal(hashes(key, ids_N[::2]), bits(key, ids_N[::2]))


@given(st.lists(int64s, max_size=300, unique=True), int64s, st.integers(1, 64))
def test_a_permutation_in_parts_is_that_of_a_sort_of_all_bits(ids, key, block):
    ids_N = torch.tensor(ids, dtype=torch.int64)
    expected = ids_N[torch.argsort(bits(key, ids_N))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "BLOCK", block)  # up to nine bits of parts
        assert torch.equal(permutation(key, ids_N), expected)
    assert ids_N.tolist() == ids


@pytest.mark.parametrize("total", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 1, 9 * BLOCK])
def test_a_permutation_of_many_is_that_of_a_sort_of_all_bits(total):
    ids = torch.arange(total) * 3
    assert torch.equal(permutation(key(1, "order", 7), ids), ids[torch.argsort(bits(key(1, "order", 7), ids))])


def test_every_place_is_equally_likely():
    places = torch.stack([permutation(key(seed, "order"), torch.arange(6)) for seed in range(3000)])
    counts = torch.stack([torch.bincount(column, minlength=6) for column in places.T])
    chi2 = ((counts - 500.0) ** 2 / 500).sum().item()  # 25 degrees of freedom; 1e-6 quantile about 79
    assert chi2 < 79
