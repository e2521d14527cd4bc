"""Selectors by score against slow restatements of their sources, and the traps that others fell into."""

import logging
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from kdprune.data import grouping
from kdprune.data.counter import bits, key
from kdprune.data.scores import Scores
from kdprune.data.subset import load_subset
from kdprune.selectors.beta import log_weights
from kdprune.selectors.ccs import allocate
from kdprune.selectors.common import order, quotas
from kdprune.selectors.common.order import first_by_hash, highest, lowest
from kdprune.selectors.common.pool import Pool
from kdprune.selectors.common.quotas import floors
from kdprune.selectors.common.samples import Samples, samples_of
from kdprune.selectors.common.select import select
from kdprune.selectors.moderate import distances

PRINT = "f" * 64
BY_SCORE = ("hardest", "easiest", "window", "window(start=0)", "ccs", "moderate", "auto")

values = st.one_of(st.integers(-3, 3).map(float), st.floats(width=32, allow_nan=False))  # many are equal, or infinite
score_lists = st.lists(values, min_size=1, max_size=120).map(lambda x: np.array(x, dtype=np.float32))
fractions = st.floats(0.001, 1.0)
seeds = st.integers(0, 1000)


def labels_of(scores, classes=3):
    return (np.arange(len(scores)) * 7 // 3) % classes


def samples(scores, **more):
    return Samples(labels_of(scores), PRINT, ["a", "b", "c"], scores=scores, **more)


def kept(scores, keep, selector, **more):
    return select(samples(scores), keep, selector, **more).ids


def hash_of(purpose, sample_id):
    return int(bits(purpose, torch.tensor([sample_id]))[0])


def in_order(scores, ids, seed):
    """Ids in ascending order of difficulty, equal ones by the seeded hash: Python's own sort, a sample at a time."""
    return sorted(ids, key=lambda i: (float(scores[i]), hash_of(key(seed, "ties"), int(i))))


# --- order and ties ---------------------------------------------------------------------------------------------------


@given(score_lists, seeds, st.data())
def test_the_lowest_are_the_first_of_the_sorted_ones(scores, seed, data):
    count = data.draw(st.integers(0, len(scores)))
    ids = np.arange(len(scores)) * 3
    by_id = dict(zip(ids, scores, strict=True))
    expected = in_order(by_id, ids, seed)
    assert set(ids[lowest(scores, count, ids, seed)]) == set(expected[:count])
    assert set(ids[highest(scores, count, ids, seed)]) == set(expected[len(ids) - count :])


@given(st.integers(1, 300), seeds, st.data())
def test_first_by_hash_is_what_a_sort_of_whole_hashes_gives(total, seed, data):
    count = data.draw(st.integers(0, total))
    ids = np.arange(total) * 5 + 2
    expected = sorted(ids, key=lambda i: hash_of(seed, int(i)))[:count]
    assert ids[first_by_hash(seed, ids, count)].tolist() == sorted(expected)


def test_hashes_with_an_equal_upper_half_are_told_apart(monkeypatch):
    full = order.hashes
    monkeypatch.setattr(order, "hashes", lambda purpose, ids: full(purpose, ids) & 0x7FFFFFFF)  # upper halves are 0
    ids = np.arange(100)
    expected = ids[np.argsort(order.hashes(7, ids))[:30]]
    assert ids[first_by_hash(7, ids, 30)].tolist() == sorted(expected)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=100))
def test_groups_are_the_ascending_positions_of_each_class(classes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "SORTED", 16)
        of_class = [np.flatnonzero(np.array(classes) == label).tolist() for label in range(8)]
        assert [group.tolist() for group in grouping.grouped(np.array(classes), 8)] == of_class
        labels, some = np.array([*classes, 3]), range(0, len(classes) + 1, 2)
        present, groups = quotas.by_class(np.array(some), labels)
        assert present.tolist() == sorted(set(labels[::2].tolist()))
        assert np.concatenate(groups).tolist() == sorted(some, key=lambda i: (labels[i], i))


def test_blocks_give_what_one_block_gives(monkeypatch):
    numbers = np.random.default_rng(0)
    scores, means = numbers.normal(size=(2, 1000)).astype(np.float32)
    one = samples(np.abs(scores), extra={"mean_probability": np.abs(means) % 1})
    expected = {s: select(one, 0.3, s, seed=3).hash for s in (*BY_SCORE, "random", "beta")}
    monkeypatch.setattr(order, "BLOCK", 64)
    assert {s: select(one, 0.3, s, seed=3).hash for s in expected} == expected


@pytest.mark.parametrize("selector", ["hardest", "easiest", "window", "ccs(beta=0)", "moderate"])
def test_equal_scores_are_chosen_by_the_seed_wherever_they_stand(selector):
    """Each of them equally often, the first and the last ones too."""
    counts = np.zeros(60)
    for seed in range(400):
        counts[kept(np.zeros(60), 0.25, selector, seed=seed)] += 1
    assert (abs(counts - 100) < 6 * (400 * 0.25 * 0.75) ** 0.5).all()


def test_the_order_of_ties_belongs_to_the_samples_not_to_their_places():
    """What other samples there are does not change which of two equal ones comes first."""
    scores = np.zeros(200)
    all_ids = kept(scores, 0.5, "hardest")
    half = select(samples(scores, excluded=np.arange(0, 200, 2)), 0.25, "hardest").ids
    order_of = {i: hash_of(key(0, "ties"), i) for i in range(200)}
    assert max(order_of[i] for i in set(range(200)) - set(all_ids)) <= min(order_of[i] for i in all_ids)
    assert min(order_of[i] for i in half) >= max(order_of[i] for i in set(range(1, 200, 2)) - set(half))


# --- what holds for all -----------------------------------------------------------------------------------------------


@given(score_lists, fractions, st.sampled_from(BY_SCORE), st.booleans(), seeds)
def test_exact_sizes_and_quotas(scores, keep, selector, balanced, seed):
    ids = kept(scores, keep, selector, balanced=balanced, seed=seed)
    count = max(1, round(keep * len(scores)))
    assert len(set(ids.tolist())) == len(ids) == count
    if balanced:
        labels = labels_of(scores)
        for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
            assert abs((labels[ids] == label).sum() - Fraction(int(size) * count, len(labels))) < 1


@given(score_lists, fractions, fractions, st.sampled_from(["hardest", "easiest", "window", "ccs(beta=0.2)"]), seeds)
def test_a_smaller_subset_is_part_of_a_larger_one(scores, one, other, selector, seed):
    small, large = sorted((one, other))
    if selector.startswith("ccs"):
        large = min(large, 0.75)
        small = min(small, large)
    if round(large * len(scores)) > len(scores) - round(0.2 * len(scores)) and selector.startswith("ccs"):
        return
    assert set(kept(scores, small, selector, seed=seed)) <= set(kept(scores, large, selector, seed=seed))


@pytest.mark.parametrize("hard", ["high", "low"])
def test_the_direction_of_the_file_decides_who_is_hard(hard):
    """The trap: a score whose low side is hard, kept from its high side."""
    scores = np.arange(10.0) if hard == "high" else -np.arange(10.0)  # sample 9 is the hardest
    given = samples(scores, hard=hard)
    assert select(given, 0.3, "hardest").ids.tolist() == [7, 8, 9]
    assert select(given, 0.3, "easiest").ids.tolist() == [0, 1, 2]
    assert select(given, 0.3, "window(skip_hardest=2)").ids.tolist() == [5, 6, 7]
    for balanced in (False, True):  # the same side in both
        assert select(given, 0.3, "hardest", balanced=balanced).ids.min() >= 7 - 3 * balanced
    with pytest.raises(ValueError, match=r"^hard: 'hihg' given, allowed are high and low"):
        select(samples(scores, hard="hihg"), 0.3, "hardest")


def test_infinite_scores_sort_as_such():
    scores = np.array([1, np.inf, -np.inf, 2, np.inf, 3])
    assert kept(scores, 2 / 6, "hardest").tolist() == [1, 4]
    assert kept(scores, 1 / 6, "easiest").tolist() == [2]
    assert kept(scores, 3 / 6, "window(skip_hardest=2)").tolist() == [0, 3, 5]


def test_scores_that_are_not_known_are_refused_with_their_ids():
    scores = np.arange(20.0)
    scores[[3, 11]] = np.nan
    for selector in (*BY_SCORE, "hardest"):
        with pytest.raises(ValueError, match=r"^scores: none \(NaN\) for 2 samples .*: 3, 11"):
            kept(scores, 0.5, selector)
    assert len(kept(scores, 0.5, "random")) == 10  # does not read them
    assert not {3, 11} & set(select(samples(scores, excluded=np.array([3, 11])), 0.9, "hardest").ids)
    extra = {"mean_probability": np.where(np.arange(20) == 7, np.nan, 0.5)}
    with pytest.raises(ValueError, match=r"^mean_probability: none \(NaN\) for 1 sample .*: 7\."):
        select(samples(np.arange(20.0), extra=extra), 0.5, "beta")


@pytest.mark.parametrize("scores", [np.zeros(9), np.zeros((10, 1)), np.array(["a"] * 10), np.zeros(10, dtype=bool)])
def test_scores_are_a_number_for_each_sample(scores):
    with pytest.raises(ValueError, match=r"^scores: .* allowed is a number for each of 10 samples"):
        Samples(np.zeros(10, dtype=int), PRINT, scores=scores)


def test_ids_beyond_the_whole_numbers_of_float32():
    """The trap: 2²⁴ + 1 is no float32, so ids that went through it come back as their neighbours."""
    first = 2**24 - 4
    labels = np.zeros(first + 12, dtype=np.int64)
    candidates = np.arange(first, first + 12)
    scores = np.zeros(len(labels), dtype=np.float32)
    scores[candidates[1::2]] = 1
    for selector in ("hardest", "window(end=1.0)"):
        given = Samples(labels, PRINT, scores=scores, excluded=np.arange(first))
        subset = select(given, 6 / len(labels), selector)
        assert subset.ids.tolist() == candidates[1::2].tolist()


# --- window -----------------------------------------------------------------------------------------------------------


@given(score_lists, fractions, st.floats(0, 1), st.sampled_from(["start", "end", "skip_hardest", None]), seeds)
@example(np.zeros(15, dtype=np.float32), 0.9, 0.9, "end", 0)
def test_a_window_is_a_block_of_the_sorted_samples(scores, keep, place, name, seed):
    total, count = len(scores), max(1, round(keep * len(scores)))
    value = int(place * total) if name == "skip_hardest" else place
    first = {
        "start": round(place * total), "end": round(place * total) - count, "skip_hardest": total - int(value) - count,
        None: (total - count) // 2,
    }[name]  # fmt: skip
    selector = f"window({name}={value})" if name else "window"
    out_of_range = (name == "start" and value >= 1) or (name == "end" and value <= 0)
    if out_of_range or not 0 <= first <= total - count:
        with pytest.raises(ValueError, match=r"^--subset\.selector: window.* allowed is"):
            kept(scores, keep, selector, seed=seed)
        return
    expected = in_order(scores, range(total), seed)[first : first + count]
    assert kept(scores, keep, selector, seed=seed).tolist() == sorted(expected)


def test_a_window_leaves_out_the_hardest_of_all_classes_together_once():
    """The trap: 60 hardest of the data set, not 60 of each class."""
    scores = np.arange(600.0)
    ids = kept(scores, 0.5, "window(skip_hardest=60)", balanced=True)
    labels = labels_of(scores)
    for label in range(3):
        members = np.flatnonzero(labels == label)
        assert ids[labels[ids] == label].tolist() == members[180 - 100 : 180].tolist()
    assert kept(scores, 0.9, "window(skip_hardest=60)", balanced=True).max() < 541


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("start=0.8", "allowed is at most 0.5"), ("end=0.3", "allowed is at least 0.5"),
        ("skip_hardest=51", "allowed is at most 50"), ("skip_hardest=-1", "whole number of at least 0"),
        ("skip_hardest=0.5", "whole number"), ("start=1", r"number in \[0, 1\)"), ("start='a'", r"number in \[0, 1\)"),
        ("end=0", r"number in \(0, 1\]"), ("start=True", "number in"), ("start=0.1, end=0.9", "one of start, end and"),
        ("strat=0.1", "did you mean 'start'"),
    ],
)  # fmt: skip
def test_a_window_beyond_the_end_is_refused_with_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=rf"^--subset\.selector: .*{words}"):
        kept(np.arange(100.0), 0.5, f"window({arguments})")


# --- ccs --------------------------------------------------------------------------------------------------------------


def slow_budgets(sizes, count):
    """Algorithm 1 of Zheng et al.: strata leave one after the other, the smallest first."""
    strata, budgets = dict(enumerate(sizes)), [0] * len(sizes)
    while strata:
        smallest = min(strata, key=lambda s: (strata[s], s))
        budgets[smallest] = min(strata[smallest], count // len(strata))
        count -= budgets[smallest]
        del strata[smallest]
    return budgets


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.data())
def test_budgets_of_strata(sizes, data):
    count = data.draw(st.integers(0, sum(sizes)))
    budgets = allocate(np.array(sizes), count)
    assert budgets.tolist() == slow_budgets(sizes, count)
    assert budgets.sum() == count
    assert (budgets <= sizes).all()


@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=150), st.floats(0.05, 0.95),
    st.sampled_from([0, 0.1, 0.3, 0.5]), st.sampled_from([1, 2, 8, 50]), seeds,
)  # fmt: skip
def test_ccs_against_a_slow_restatement(scores, keep, beta, strata, seed):
    scores = np.array(scores, dtype=np.float32)
    total, count = len(scores), max(1, round(keep * len(scores)))
    if total - round(beta * total) < count:
        with pytest.raises(ValueError, match=r"ccs: beta=.* allowed is at most"):
            kept(scores, keep, f"ccs(beta={beta}, strata={strata})")
        return
    remaining = in_order(scores, range(total), seed)[: total - round(beta * total)]
    low, high = min(scores[remaining]), max(scores[remaining])
    members = [[] for _ in range(strata)]
    for i in remaining:
        place = math.floor(float(scores[i] - low) / float(high - low) * strata) if high > low else 0
        members[min(place, strata - 1)].append(i)
    expected = []
    for inside, budget in zip(members, slow_budgets([len(inside) for inside in members], count), strict=True):
        expected += sorted(inside, key=lambda i: hash_of(key(seed, "ccs"), i))[:budget]
    assert kept(scores, keep, f"ccs(beta={beta}, strata={strata})", seed=seed).tolist() == sorted(expected)


def test_ccs_covers_what_is_left_and_leaves_out_the_hardest():
    scores = np.concatenate([np.linspace(0, 1, 900), np.linspace(5, 9, 100)])  # easy ones are many
    ids = kept(scores, 0.1, "ccs(beta=0.05)")
    in_strata = np.bincount(np.minimum(scores[ids] / scores[949] * 50, 49).astype(int), minlength=50)
    assert ids.max() < 950
    assert (scores[ids] > 4).sum() > 40  # 5% of the candidates, half of the subset
    assert in_strata.max() <= 10


def test_ccs_cuts_its_strata_over_the_range_of_what_is_left():
    """Zheng et al. cut off the hardest first: their scores, which may be far away, do not widen the strata."""
    scores = np.concatenate([np.arange(90.0), np.full(10, 1e6)])
    for seed in range(5):
        ids = kept(scores, 0.09, "ccs(beta=0.1, strata=9)", seed=seed)
        assert (ids * 9 // 89).clip(max=8).tolist() == list(range(9))  # one of each stratum of [0, 89]


def test_ccs_takes_infinite_scores_and_a_range_beyond_float32():
    never_learned = np.array([*range(60), *[np.inf] * 40], dtype=np.float32)
    ids = kept(never_learned, 0.3, "ccs(beta=0.1, strata=10)")
    assert 2 <= (ids >= 60).sum() <= 5  # a part of the last stratum, not all of it
    assert len(kept(np.array([-3e38, 0, 1, 3e38] * 10), 0.5, "ccs(beta=0)")) == 20
    assert len(kept(np.array([np.inf, -np.inf] * 10), 0.5, "ccs(beta=0)")) == 10
    assert len(kept(np.array([np.inf] * 20), 0.5, "ccs(beta=0)")) == 10


def test_the_published_beta_is_said_and_recorded(monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("kdprune"), "info", lambda text, *args: said.append(text % args))
    given = samples(np.arange(1000.0))
    for keep, beta in ((0.9, 0), (0.5, 0), (0.4, 0.05), (0.3, 0.1), (0.25, 0.1), (0.1, 0.3), (0.01, 0.3)):
        chosen = select(given, keep, "ccs").chosen
        assert chosen["selector"] == "ccs"
        assert chosen["resolved"] == f"ccs(beta={float(beta)}, strata=50)"
        assert f"beta is {beta:g}, as published for CIFAR-10" in said[-1]
        assert (select(given, keep, chosen["resolved"]).ids == select(given, keep, "ccs").ids).all()
    for wrong in ("beta=1", "beta=-0.1", "strata=0", "strata=2.5", "beta='x'"):
        with pytest.raises(ValueError, match=r"^--subset\.selector: ccs\(.*allowed is"):
            select(given, 0.3, f"ccs({wrong})")


# --- beta sampling ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.001, 0.999)), min_size=2, max_size=30), st.floats(0.01, 14.9))
def test_weights_are_score_times_density(pairs, b):
    scores, means = np.array(pairs).T
    ours = log_weights(scores, means, b)
    theirs = np.log(scores) + stats.beta.logpdf(means, 16 - b, b)
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-9)


def test_beta_draws_in_proportion_to_its_weights():
    """The first of a draw without replacement is each sample with the probability of its weight."""
    scores, means = np.array([1.0, 2, 3, 1, 0]), np.array([0.3, 0.5, 0.7, 0.9, 0.5])
    given = samples(scores, extra={"mean_probability": means})
    b = 15 * (1 - 0.4) * (1 - 0.8**4)
    weights = scores * stats.beta.pdf(means, 16 - b, b)
    firsts = np.bincount([select(given, 0.2, "beta(mu=0.4)", seed=s).ids[0] for s in range(4000)], minlength=5)
    expected = 4000 * weights / weights.sum()
    assert (abs(firsts - expected) <= 5 * np.sqrt(expected)).all()
    assert firsts[4] == 0


def test_beta_moves_to_easy_samples_where_much_is_left_out():
    numbers = np.random.default_rng(0)
    means = numbers.random(5000)
    given = samples(numbers.random(5000), extra={"mean_probability": means})
    kept_means = [means[select(given, keep, "beta").ids].mean() for keep in (0.7, 0.3, 0.1, 0.02)]
    assert kept_means == sorted(kept_means)


def test_mu_is_the_mean_of_the_ten_hardest_of_all_classes():
    scores = np.arange(300.0)
    means = scores / 300
    given = samples(scores, extra={"mean_probability": means})
    for balanced in (False, True):
        resolved = select(given, 0.2, "beta", balanced=balanced).chosen["resolved"]
        assert resolved == f"beta(c=4.0, mu={round(float(means[-10:].astype(np.float32).mean()), 6)})"
    assert len(select(given, 1.0, "beta").ids) == 300
    assert len(select(given, 0.5, "beta(mu=1)").ids) == 150


def test_what_beta_cannot_work_with():
    scores, means = np.arange(20.0), np.linspace(0, 1, 20)
    with pytest.raises(ValueError, match="beta needs mean_probability of every sample"):
        select(samples(scores), 0.5, "beta")
    with pytest.raises(ValueError, match=r"scores must be 0 and above, .* for 1 sample \(4\)"):
        select(samples(np.where(scores == 4, -1, scores), extra={"mean_probability": means}), 0.5, "beta")
    with pytest.raises(ValueError, match=r"0 and above, with the hard side high: not so for 19 samples"):
        select(samples(scores, hard="low", extra={"mean_probability": means}), 0.5, "beta")
    with pytest.raises(ValueError, match=r"mean_probability must be 0 to 1: not so for 1 sample \(19\)"):
        select(samples(scores, extra={"mean_probability": means * 1.01}), 0.5, "beta")
    for wrong in ("c=0", "mu=2", "c='x'"):
        with pytest.raises(ValueError, match=r"beta\(.* allowed is a number"):
            select(samples(scores, extra={"mean_probability": means}), 0.5, f"beta({wrong})")


# --- moderate, auto ---------------------------------------------------------------------------------------------------


@given(score_lists, fractions, seeds)
def test_moderate_keeps_the_nearest_to_the_median_of_each_class(scores, keep, seed):
    labels = labels_of(scores)
    ids = kept(scores, keep, "moderate", seed=seed)
    np.testing.assert_array_equal(ids, kept(scores, keep, "moderate", seed=seed, balanced=True))
    for label in set(labels):
        members = np.flatnonzero(labels == label)
        middle = sorted(scores[members])[(len(members) - 1) // 2]
        far = [0.0 if scores[i] == middle else float(abs(scores[i] - middle)) for i in range(len(scores))]
        expected = in_order(far, members, seed)[: (labels[ids] == label).sum()]
        assert ids[labels[ids] == label].tolist() == sorted(expected)


def test_distances_have_no_nan():
    assert distances(np.array([np.inf, 1, 2, np.inf, np.inf], dtype=np.float32)).tolist() == [0, np.inf, np.inf, 0, 0]
    with pytest.raises(ValueError, match="moderate needs labels"):
        select(Samples(np.full(9, -1), PRINT, scores=np.arange(9.0)), 0.5, "moderate")


def test_auto_keeps_the_hard_side_of_abundant_data_and_says_so(monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("kdprune"), "info", lambda text, *args: said.append(text % args))
    scores = np.arange(6000.0)
    for keep, side, word in ((0.5, "hardest", "abundant"), (0.49, "easiest", "scarce")):
        for balanced in (False, True):
            subset = select(samples(scores), keep, "auto", balanced=balanced)
            np.testing.assert_array_equal(subset.ids, kept(scores, keep, side, balanced=balanced))
            assert subset.chosen["resolved"] == f"auto(threshold=1000, keep={side!r})"
            assert word in said[-1]
    assert kept(scores, 0.1, "auto(threshold=200)").min() > 0
    for wrong in ("threshold=-1", "keep='hard'"):
        with pytest.raises(ValueError, match=r"auto\(.* allowed is"):
            kept(scores, 0.1, f"auto({wrong})")


# --- a floor that is a share ------------------------------------------------------------------------------------------


@given(score_lists, fractions, st.floats(0.01, 0.99), st.booleans(), seeds)
@example(np.arange(30, dtype=np.float32), 1.0, 0.1, False, 0)
def test_every_class_keeps_its_share_of_what_uniform_pruning_would_leave(scores, keep, share, balanced, seed):
    labels = np.sort(labels_of(scores) // 2)  # unequal classes, and hard ones are the last
    given = Samples(labels, PRINT, scores=np.sort(scores))
    subset = select(given, keep, "hardest", class_floor=share, balanced=balanced, seed=seed)
    count = max(1, round(keep * len(scores)))
    assert len(subset.ids) == count
    assert subset.chosen["class_floor"] == share
    classes, sizes = np.unique(labels, return_counts=True)
    uniform = select(given, keep, "random", balanced=True, seed=seed).ids
    for label, _ in zip(classes, sizes, strict=True):
        assert (labels[subset.ids] == label).sum() >= Fraction(str(share)) * int((labels[uniform] == label).sum())
    free = select(given, keep, "hardest", balanced=balanced, seed=seed).ids
    least = floors(share, sizes, count, seed, classes)
    if (np.bincount(labels[free], minlength=classes.max() + 1)[classes] >= least).all():
        np.testing.assert_array_equal(subset.ids, free)


def test_a_tenth_of_thirty_is_three():
    """0.1 · 30 is a little more than 3 in floats."""
    assert floors(0.1, np.array([300]), 30, 0, np.arange(1)).tolist() == [3]
    # halves of 4 and 1, or of 3 and 2, rounded up: quotas are 3.5 and 1.5
    assert floors(0.5, np.array([7, 3]), 5, 0, np.arange(2)).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"^--subset\.class_floor: 1.5 given, allowed is a whole number"):
        kept(np.arange(10.0), 0.5, "hardest", class_floor=1.5)
    with pytest.raises(ValueError, match=r"^--subset\.class_floor: -1 given"):
        kept(np.arange(10.0), 0.5, "hardest", class_floor=-1)


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_is_recorded(tmp_path):
    numbers = np.random.default_rng(0)
    scores = Scores(numbers.random(50), labels_of(np.zeros(50)), PRINT, "aum(epochs=5)", "low", ("a", "b", "c"))
    subset = select(samples_of(scores), 0.3, "window(skip_hardest=5)", balanced=True, class_floor=0.5, seed=4)
    subset.save(tmp_path / "subset.json")
    assert load_subset(tmp_path / "subset.json", PRINT, 50).chosen == {
        "selector": "window(skip_hardest=5)", "keep_fraction": 0.3, "balanced": True, "seed": 4, "class_floor": 0.5,
        "resolved": "window(end=0.9)", "scorer": "aum(epochs=5)", "hard": "low", "scores_hash": scores.hash,
        "ties": "seeded",
    }  # fmt: skip
    plain = select(samples_of(scores), 0.3).chosen
    assert plain == {"selector": "random", "keep_fraction": 0.3, "balanced": False, "seed": 0}


def test_samples_that_were_not_observed_are_not_kept(tmp_path):
    values = np.arange(12.0)
    values[[2, 11]] = np.nan
    Scores(values, labels_of(values), PRINT, "mine", "high", ("a", "b", "c")).save(tmp_path / "s.parquet")
    given = samples_of(Scores.load(tmp_path / "s.parquet"), excluded=np.array([10]))
    assert given.labels[2] == -1
    assert select(given, 0.5, "hardest").ids.tolist() == [4, 5, 6, 7, 8, 9]
    for selector in ("hardest", "moderate", "random"):
        ids = select(given, 0.5, selector, balanced=True, class_floor=1).ids
        assert len(ids) == 6
        assert not {2, 10, 11} & set(ids.tolist())


def test_a_pool_of_all_samples_needs_no_copy_of_their_scores():
    from kdprune.selectors.common.pool import scores_of

    scores = np.arange(5, dtype=np.float32)
    labels = np.zeros(5, dtype=np.int64)
    assert scores_of(Pool(np.arange(5), labels, [], 1, 0, scores)) is scores
    assert scores_of(Pool(np.array([1, 4]), labels, [], 1, 0, scores)).tolist() == [1, 4]


def test_the_public_function_takes_numbers_or_a_file_of_them(tmp_path):
    import kdprune

    labels, values = labels_of(np.zeros(40)), np.random.default_rng(0).random(40)
    by_hand = kdprune.select(labels, 0.3, "hardest", scores=values, hard="low")
    assert set(by_hand.ids) == set(np.argsort(values)[:12])
    plain = kdprune.select(labels, 0.3)
    scores = Scores(values, labels, plain.fingerprint, "mine", "low", ("0", "1", "2"))
    for subset in (
        kdprune.select(labels, 0.3, "hardest", scores=scores), kdprune.select(scores, 0.3, "hardest"),
        kdprune.select(scores, 0.3, "easiest", hard="high"),
    ):  # fmt: skip
        np.testing.assert_array_equal(subset.ids, by_hand.ids)
        assert subset.fingerprint == plain.fingerprint
        assert subset.chosen["scorer"] == "mine"
    with pytest.raises(ValueError, match="scores: of other data"):
        kdprune.select(labels[1:], 0.3, "hardest", scores=scores)
    with pytest.raises(ValueError, match="scores: given beside"):
        kdprune.select(scores, 0.3, "hardest", scores=values)


def test_ties_among_ids_beyond_the_whole_numbers_of_float32_are_told_apart():
    """Neighbouring ids have hashes of their own there, too: the choice is that of a literal sort."""
    ids = 2**24 + np.arange(1000)
    hashed = bits(key(3, "ties"), torch.from_numpy(ids)).numpy()
    assert len(set(hashed.tolist())) == 1000
    expected = set(ids[np.argsort(hashed)[:100]].tolist())
    assert set(ids[lowest(np.zeros(1000, np.float32), 100, ids, 3)].tolist()) == expected
