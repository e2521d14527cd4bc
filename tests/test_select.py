"""From a keep fraction and a selector to the kept samples: exact counts, quotas of classes, what is never kept."""

import logging
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprune import registry
from kdprune.data.counter import bits, key, permutation
from kdprune.selectors.common.pool import declare
from kdprune.selectors.common.quotas import lifted, quotas
from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select

PRINT = "f" * 64

label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(lambda x: np.array(x, dtype=np.int64))
fractions = st.floats(0.001, 1.0)
seeds = st.integers(0, 1000)


def kept(labels, keep, balanced=False, seed=0, **more):
    return select(Samples(labels, PRINT), keep, balanced=balanced, seed=seed, **more).ids


@pytest.fixture
def warnings_of(monkeypatch):
    """Messages of kdprune's logger, whatever others have set up."""
    messages = []
    monkeypatch.setattr(logging.getLogger("kdprune"), "warning", lambda text, *args: messages.append(text % args))
    return messages


@given(label_lists, fractions, st.booleans(), seeds)
def test_exactly_as_many_as_asked_for(labels, keep, balanced, seed):
    ids = kept(labels, keep, balanced, seed)
    assert ids.dtype == np.int64
    assert len(ids) == max(1, round(keep * len(labels)))
    assert (np.diff(ids) > 0).all()
    assert ids[0] >= 0
    assert ids[-1] < len(labels)


@given(label_lists, fractions, fractions, seeds)
def test_a_smaller_subset_is_part_of_a_larger_one(labels, one, other, seed):
    small, large = sorted((one, other))
    assert set(kept(labels, small, seed=seed)) <= set(kept(labels, large, seed=seed))


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6), st.integers(1, 10), seeds)
def test_a_balanced_subset_is_nested_where_every_class_grows(sizes, divisor, seed):
    labels = np.repeat(np.arange(len(sizes)), [size * divisor for size in sizes])
    part = kept(labels, 1 / divisor, balanced=True, seed=seed)  # a whole number of each class
    assert np.bincount(labels[part]).tolist() == sizes
    assert set(part) <= set(kept(labels, 1.0, balanced=True, seed=seed))


def hamilton(sizes: dict[int, int], count: int, seed: int, purpose: str = "quotas") -> list[int]:
    """Largest remainder in exact arithmetic, class by class; ties by a hash of (seed, purpose, class)."""
    exact = {c: Fraction(size * count, sum(sizes.values())) for c, size in sizes.items()}
    quotas = {c: int(share) for c, share in exact.items()}
    order = sorted(sizes, key=lambda c: (quotas[c] - exact[c], int(bits(key(seed, purpose), torch.tensor([c]))[0])))
    for c in order[: count - sum(quotas.values())]:
        quotas[c] += 1
    return list(quotas.values())


many_or_alike = st.one_of(st.integers(1, 10**6), st.integers(1, 3))  # those have equal remainders


@given(st.dictionaries(st.integers(0, 1000), many_or_alike, min_size=1, max_size=30), seeds, st.data())
def test_quotas_are_exact(sizes, seed, data):
    classes_C, sizes_C = np.array(list(sizes)), np.array(list(sizes.values()))
    count = data.draw(st.integers(1, sum(sizes_C)))
    shares = quotas(sizes_C, count, seed, classes_C)
    assert shares.tolist() == hamilton(sizes, count, seed)
    assert shares.sum() == count
    assert (abs(shares - sizes_C * (count / sum(sizes_C))) < 1 + 1e-9).all()
    assert (shares <= sizes_C).all()


@given(st.integers(1, 40), st.integers(1, 5), seeds)
def test_no_class_of_equally_many_gets_less_of_more(classes, size, seed):
    sizes_C, labels_C = np.full(classes, size), np.arange(classes)
    growing = [quotas(sizes_C, count, seed, labels_C) for count in range(classes * size + 1)]
    assert (np.diff(growing, axis=0) >= 0).all()


@given(st.integers(0, 1000), st.permutations(range(6)))
def test_who_wins_a_tie_depends_on_the_class_and_not_on_its_place(seed, order):
    sizes_C = np.array([5, 5, 5, 5, 7, 7])
    straight, moved = (quotas(sizes_C[o], 13, seed, np.arange(6)[o]) for o in (slice(None), order))
    np.testing.assert_array_equal(straight[order], moved)


def test_every_class_wins_ties_equally_often():
    """Of ten classes with equal remainders, four get one more; so does each of them for four seeds of ten."""
    sizes_C, classes_C = np.full(10, 50), np.arange(10)
    wins_C = sum(quotas(sizes_C, 54, seed, classes_C) - 5 for seed in range(500))
    assert wins_C.sum() == 2000
    assert abs(wins_C - 200).max() < 5 * (500 * 0.4 * 0.6) ** 0.5


def test_who_makes_room_for_a_floor_depends_on_the_seed():
    sizes_C, classes_C = np.array([10, 10, 10, 1]), np.arange(4)
    new = {tuple(lifted(sizes_C, 2, seed, classes_C)) for seed in range(40)}
    assert new == {(9, 10, 10, 2), (10, 9, 10, 2), (10, 10, 9, 2)}


def reference(candidates, labels, count, seed, balanced):
    """Random selection as it was first written, with its quotas inside."""
    order = permutation(key(seed, "subset"), torch.from_numpy(candidates)).numpy()
    if not balanced:
        return np.sort(order[:count])
    classes, place, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    shares = hamilton(dict(zip(classes.tolist(), sizes.tolist(), strict=True)), count, seed)
    parts = [order[place == index][:share] for index, share in zip(range(len(classes)), shares, strict=True)]
    return np.sort(np.concatenate(parts))


@given(st.integers(1, 400), st.integers(1, 30), fractions, st.integers(0, 2**31), st.booleans(), st.data())
def test_random_keeps_what_it_has_always_kept(total, classes, keep, seed, balanced, data):
    numbers = np.random.default_rng(data.draw(st.integers(0, 1000)))
    labels, dropped = numbers.integers(classes, size=total), np.flatnonzero(numbers.random(total) < 0.2)[: total - 1]
    candidates = np.setdiff1d(np.arange(total), dropped)
    count = min(max(1, round(keep * total)), len(candidates))
    subset = select(Samples(labels, PRINT, dropped=dropped), keep, balanced=balanced, seed=seed)
    np.testing.assert_array_equal(subset.ids, reference(candidates, labels, count, seed, balanced))


@given(label_lists, fractions, seeds)
def test_a_balanced_subset_gives_every_class_its_quota(labels, keep, seed):
    ids = kept(labels, keep, balanced=True, seed=seed)
    classes, sizes = np.unique(labels, return_counts=True)
    found = [(labels[ids] == c).sum() for c in classes]
    assert found == hamilton(dict(zip(classes.tolist(), sizes.tolist(), strict=True)), len(ids), seed)


@pytest.mark.parametrize("classes", [3, 7, 10, 100])
def test_the_last_class_does_not_pay_for_the_rounding(classes):
    labels = np.repeat(np.arange(classes), 50)
    for keep in (0.1, 0.25, 0.33, 0.5, 0.71):
        counts = np.bincount(labels[kept(labels, keep, balanced=True)], minlength=classes)
        assert counts.max() - counts.min() <= 1
        assert counts[-1] >= int(50 * keep)


def test_seeds_choose_differently_and_every_sample_equally_often():
    labels = np.zeros(40, dtype=np.int64)
    subsets = [kept(labels, 0.25, seed=seed) for seed in range(400)]
    counts = np.bincount(np.concatenate(subsets), minlength=40)
    assert len({tuple(ids) for ids in subsets}) > 395
    assert (abs(counts - 100) < 6 * (400 * 0.25 * 0.75) ** 0.5).all()


def test_the_same_seed_gives_the_same_subset_in_a_fresh_process():
    script = (
        "import numpy as np; from kdprune.selectors.common.samples import Samples\n"
        "from kdprune.selectors.common.select import select\n"
        "samples = Samples(np.arange(5000) % 10, 'x')\n"
        "for b in (False, True): print(select(samples, 0.3, balanced=b, seed=7).hash)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    samples = Samples(np.arange(5000) % 10, "y")
    assert printed.split() == [select(samples, 0.3, balanced=b, seed=7).hash for b in (False, True)]


@given(label_lists, fractions, st.booleans(), st.booleans(), st.data())
def test_what_is_dropped_or_excluded_is_never_kept(labels, keep, balanced, as_mask, data):
    ids = st.sets(st.integers(0, len(labels) - 1), max_size=len(labels) // 2)
    dropped, excluded = (np.array(sorted(data.draw(ids)), dtype=int) for _ in range(2))
    barred = set(dropped) | set(excluded)
    if as_mask:
        excluded = np.isin(np.arange(len(labels)), excluded)
    if len(barred) == len(labels):
        return
    subset = select(Samples(labels, PRINT, dropped=dropped, excluded=excluded), keep, balanced=balanced)
    assert not set(subset.ids) & barred
    assert subset.dropped == tuple(dropped)  # only these are unreadable
    assert len(subset.ids) == min(max(1, round(keep * len(labels))), len(labels) - len(barred))


@pytest.mark.parametrize("excluded", [[10], [-1], [0.5], ["a"], [[1]], np.ones(9, dtype=bool)])
def test_excluded_samples_are_ids_or_a_mask(excluded):
    with pytest.raises(ValueError, match=r"excluded: allowed are sample ids from 0 to 9, or a mask of 10"):
        select(Samples(np.zeros(10, dtype=int), PRINT, excluded=excluded), 0.5)


def test_nothing_is_left():
    with pytest.raises(ValueError, match="no sample is left"):
        select(Samples(np.zeros(10, dtype=int), PRINT, excluded=np.ones(10, dtype=bool)), 0.5)


@pytest.mark.parametrize("labels", [[], [0.0, 1.0], [[0], [1]], ["a"]])
def test_labels_are_whole_numbers(labels):
    with pytest.raises(ValueError, match="allowed are whole numbers"):
        Samples(np.array(labels), PRINT)


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_keep_fraction_must_be_in_its_range(keep):
    with pytest.raises(ValueError, match=r"--subset.keep_fraction: .* given, allowed is \(0, 1\]"):
        kept(np.zeros(10, dtype=np.int64), keep)


def test_an_unknown_selector_and_balance_without_labels():
    with pytest.raises(ValueError, match="unknown selector 'randon'; did you mean 'random'"):
        kept(np.zeros(10, dtype=np.int64), 0.5, selector="randon")
    with pytest.raises(ValueError, match=r"--subset.balanced: the data set has samples without a label"):
        kept(np.full(10, -1), 0.5, balanced=True)


def test_a_lost_class_warns(warnings_of):
    labels = np.array([0] * 99 + [1])
    seed = next(s for s in range(100) if 99 not in kept(labels, 0.1, seed=s))
    warnings_of.clear()
    kept(labels, 0.1, seed=seed)
    assert len(warnings_of) == 1
    assert "keeps no sample of 1 class (1)" in warnings_of[0]
    assert "--subset.balanced" in warnings_of[0]
    warnings_of.clear()
    kept(labels, 1.0)
    kept(np.full(50, -1), 0.1)
    assert not warnings_of


# --- without classes --------------------------------------------------------------------------------------------------


@given(label_lists, fractions, st.booleans(), seeds, st.data())
def test_a_class_that_is_left_out_is_never_kept(labels, keep, balanced, seed, data):
    without = data.draw(st.lists(st.sampled_from(range(7)), max_size=3, unique=True))
    left = int((~np.isin(labels, without)).sum())
    if not left:
        with pytest.raises(ValueError, match=r"--subset\.without_classes: .* no sample is left"):
            kept(labels, keep, balanced, seed, without_classes=without)
        return
    subset = select(Samples(labels, PRINT), keep, balanced=balanced, seed=seed, without_classes=without)
    assert not np.isin(labels[subset.ids], without).any()
    assert len(subset.ids) == min(max(1, round(keep * len(labels))), left)  # the fraction counts all samples
    assert subset.chosen.get("without_classes", []) == without
    assert subset.total == len(labels)


def test_a_lost_class_is_no_surprise_where_it_was_asked_for(warnings_of, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("kdprune"), "info", lambda text, *args: said.append(text % args))
    labels = np.arange(100) % 5
    kept(labels, 1.0, without_classes=[1, 3])
    assert not warnings_of
    assert said == ["the subset keeps no sample of 2 classes (1, 3), as --subset.without_classes asks"]
    labels[4] = 6
    kept(labels[:5], 0.2, without_classes=[1, 3])
    assert len(warnings_of) == 1
    assert "(1" not in warnings_of[0]


def test_classes_cannot_be_left_out_of_unlabelled_data():
    with pytest.raises(ValueError, match=r"--subset\.without_classes: the data set has samples without a label"):
        kept(np.array([0, 1, -1]), 0.5, without_classes=[0])


# --- a floor for every class ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 50), seeds)
def test_quotas_are_lifted_to_the_floor_and_no_further_than_they_must(quotas, floor, seed):
    quotas = np.array(quotas)
    if floor * len(quotas) > quotas.sum():
        return
    new = lifted(quotas, floor, seed, np.arange(len(quotas)))
    assert new.sum() == quotas.sum()
    assert (new >= floor).all()
    assert (new[quotas <= floor] == floor).all()
    assert (new[quotas > floor] <= quotas[quotas > floor]).all()


@given(label_lists, fractions, st.integers(1, 5), st.booleans(), seeds)
def test_every_class_keeps_at_least_the_floor_or_it_is_refused(labels, keep, floor, balanced, seed):
    sizes = np.bincount(labels)
    count = max(1, round(keep * len(labels)))
    if floor > sizes[sizes > 0].min() or floor * (sizes > 0).sum() > count:
        with pytest.raises(ValueError, match=rf"^--subset\.class_floor: {floor} given"):
            kept(labels, keep, balanced, seed, class_floor=floor)
        return
    subset = select(Samples(labels, PRINT), keep, balanced=balanced, seed=seed, class_floor=floor)
    counts = np.bincount(labels[subset.ids], minlength=len(sizes))
    assert len(subset.ids) == count
    assert counts[sizes > 0].min() >= floor
    assert subset.chosen["class_floor"] == floor
    free = kept(labels, keep, balanced, seed)
    if np.bincount(labels[free], minlength=len(sizes))[sizes > 0].min() >= floor:
        np.testing.assert_array_equal(subset.ids, free)


# --- selectors and what they are given --------------------------------------------------------------------------------


@pytest.fixture
def mine(monkeypatch):
    """A selector of one's own, as `mine`."""

    def add(function):
        monkeypatch.setitem(registry._registered, "selectors", {"mine": function})
        return function

    return add


def test_a_selector_is_called_once_for_each_class(mine):
    pools = []

    @mine
    def mine_(pool):
        pools.append(pool)
        return pool.candidates[: pool.count]

    labels = np.array([0] * 8 + [2] * 4)
    samples = Samples(labels, PRINT, ["a", "b", "c"], dropped=np.array([0]))
    assert select(samples, 0.5, "mine").ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert select(samples, 0.5, "mine", balanced=True).ids.tolist() == [1, 2, 3, 4, 8, 9]
    assert [(pool.candidates.tolist(), pool.count) for pool in pools] == [
        ([*range(1, 12)], 6), ([*range(1, 8)], 4), ([8, 9, 10, 11], 2),
    ]  # fmt: skip
    assert all(pool.labels is labels and pool.classes == ["a", "b", "c"] for pool in pools)


def test_a_selector_gets_what_it_needs_or_is_refused(mine):
    @mine
    @declare(needs=["scores", "labels"])
    def best(pool):
        return np.sort(pool.candidates[np.argsort(pool.scores[pool.candidates])[-pool.count :]])

    labels, scores = np.zeros(6, dtype=int), np.array([5.0, 1, 4, 2, 3, 0])
    assert select(Samples(labels, PRINT, scores=scores), 0.5, "mine").ids.tolist() == [0, 2, 4]
    for samples in (Samples(labels, PRINT), Samples(labels - 1, PRINT, scores=scores)):
        with pytest.raises(ValueError, match=r"^--subset\.selector: mine needs (scores|labels)"):
            select(samples, 0.5, "mine")
    with pytest.raises(ValueError, match="did you mean 'scores'"):
        declare(needs=["score"])


def test_a_selector_that_breaks_its_contract_is_named(mine):
    mine(lambda pool: np.arange(pool.count + 1))
    with pytest.raises(ValueError, match=r"^--subset\.selector: selector mine .* keeps 4 samples, and 3 asked"):
        select(Samples(np.zeros(6, dtype=int), PRINT), 0.5, "mine")
