"""The kept part of a training set: who is in it, and what its file refuses."""

import json
import logging
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.data import subset as module
from kdprune.data.subset import class_ids, load_subset, select
from kdprune.selectors.random import largest_remainder

PRINT = "f" * 64

label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(lambda x: np.array(x, dtype=np.int64))
fractions = st.floats(0.001, 1.0)
seeds = st.integers(0, 1000)


def kept(labels, keep, balanced=False, seed=0, **more):
    return select(labels, PRINT, keep, "random", balanced, seed, **more).ids


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


def hamilton(sizes: list[int], count: int) -> list[int]:
    """Largest remainder in exact arithmetic."""
    exact = [Fraction(size * count, sum(sizes)) for size in sizes]
    quotas = [int(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda c: (quotas[c] - exact[c], c))
    for c in order[: count - sum(quotas)]:
        quotas[c] += 1
    return quotas


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.data())
def test_quotas_are_exact(sizes, data):
    count = data.draw(st.integers(1, sum(sizes)))
    quotas = largest_remainder(np.array(sizes), count)
    assert quotas.tolist() == hamilton(sizes, count)
    assert quotas.sum() == count
    assert (abs(quotas - np.array(sizes) * (count / sum(sizes))) < 1 + 1e-9).all()
    assert (quotas <= sizes).all()


@given(label_lists, fractions, seeds)
def test_a_balanced_subset_gives_every_class_its_quota(labels, keep, seed):
    ids = kept(labels, keep, balanced=True, seed=seed)
    classes, sizes = np.unique(labels, return_counts=True)
    found = [(labels[ids] == c).sum() for c in classes]
    assert found == hamilton(sizes.tolist(), len(ids))


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
        "import numpy as np; from kdprune.data.subset import select\n"
        "for b in (False, True): print(select(np.arange(5000) % 10, 'x', 0.3, 'random', b, 7).hash)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    labels = np.arange(5000) % 10
    assert printed.split() == [select(labels, "y", 0.3, "random", b, 7).hash for b in (False, True)]


@given(label_lists, fractions, st.booleans(), st.data())
def test_unreadable_samples_are_never_chosen(labels, keep, balanced, data):
    dropped = np.array(sorted(data.draw(st.sets(st.integers(0, len(labels) - 1), max_size=len(labels) - 1))), dtype=int)
    subset = select(labels, PRINT, keep, "random", balanced, 0, dropped)
    assert not set(subset.ids) & set(dropped)
    assert subset.dropped == tuple(dropped)
    assert len(subset.ids) == min(max(1, round(keep * len(labels))), len(labels) - len(dropped))


@pytest.mark.parametrize("keep", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_keep_fraction_must_be_in_its_range(keep):
    with pytest.raises(ValueError, match=r"--subset.keep_fraction: .* given, allowed is \(0, 1\]"):
        kept(np.zeros(10, dtype=np.int64), keep)


def test_an_unknown_selector_and_balance_without_labels():
    with pytest.raises(ValueError, match="unknown selector 'randon'; did you mean 'random'"):
        select(np.zeros(10, dtype=np.int64), PRINT, 0.5, "randon")
    with pytest.raises(ValueError, match=r"--subset.balanced: the data set has samples without a label"):
        kept(np.full(10, -1), 0.5, balanced=True)


def test_a_lost_class_warns(warnings_of):
    labels = np.array([0] * 99 + [1])
    seed = next(s for s in range(100) if 99 not in kept(labels, 0.1, seed=s))
    warnings_of.clear()
    kept(labels, 0.1, seed=seed)
    assert len(warnings_of) == 1
    assert "keeps no sample of 1 classes (1)" in warnings_of[0]
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
    subset = select(labels, PRINT, keep, "random", balanced, seed, without_classes=without)
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


def test_classes_by_name_or_index():
    names = ["cat", "dog", "2", "bird"]
    assert class_ids([], names) == []
    assert class_ids(["dog", "0", "3", "dog"], names) == [0, 1, 3]
    assert class_ids(["2"], names) == [2]
    assert class_ids(["1", "10"], ["1", "10", "2"]) == [0, 1]  # names come first
    for wrong, hint in (("dgo", "; did you mean 'dog'"), ("4", ""), ("-1", ""), ("1.0", "")):
        message = f"unknown class '{wrong}'{hint}.*allowed: cat, dog, 2, bird, or an index from 0 to 3"
        with pytest.raises(ValueError, match=f"--subset.without_classes: {message}"):
            class_ids([wrong], names)


def test_classes_cannot_be_left_out_of_unlabelled_data():
    with pytest.raises(ValueError, match=r"--subset\.without_classes: the data set has samples without a label"):
        kept(np.array([0, 1, -1]), 0.5, without_classes=[0])


# --- the file ---------------------------------------------------------------------------------------------------------


def example(count: int = 60):
    return select(np.arange(count) % 3, PRINT, 0.5, "random", True, 5, np.array([4, 9]))


@pytest.mark.parametrize("inline", [100_000, 10])
def test_a_file_gives_back_what_was_saved(tmp_path, monkeypatch, inline):
    monkeypatch.setattr(module, "INLINE", inline)
    subset = example()
    path = tmp_path / "subset.json"
    subset.save(path)
    again = load_subset(path, PRINT, 60)
    assert (again.ids == subset.ids).all()
    assert again.ids.dtype == np.int64
    assert again.hash == subset.hash
    assert (again.total, again.fingerprint, again.chosen, again.dropped) == (60, PRINT, subset.chosen, (4, 9))
    assert again.keep_fraction == 0.5
    assert {file.name for file in tmp_path.iterdir()} == {"subset.json", *(["subset.ids.npy"] if inline == 10 else [])}
    content = json.loads(path.read_text())
    assert content["kept"] == 30
    assert content["chosen"] == {"selector": "random", "keep_fraction": 0.5, "balanced": True, "seed": 5}


def edited(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


@pytest.fixture
def saved(tmp_path):
    example().save(tmp_path / "subset.json")
    return tmp_path / "subset.json"


def hash_of(ids) -> str:
    return module.Subset(np.array(ids), 60, PRINT).hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other 1"}, "is not a subset file: its 'format' should be 'kdprune subset 1'"),
        ({"ids": [1, 2, 3]}, "the ids do not match the hash in the file"),
        ({"hash": "0"}, "the ids do not match the hash"),
        ({"ids": [1, 60], "hash": hash_of([1, 60])}, "ids must be ascending, without repetition, between 0 and 59"),
        ({"ids": [-1, 5], "hash": hash_of([-1, 5])}, "between 0 and 59"),
        ({"ids": [5, 2], "hash": hash_of([5, 2])}, "ascending"),
        ({"ids": [5, 5], "hash": hash_of([5, 5])}, "without repetition"),
        ({"ids": [], "hash": hash_of(np.array([], dtype=int))}, "ids must be"),
        ({"ids": ["a"]}, "its ids cannot be read"),
        ({"total": ...}, "damaged: it has no 'total'"),
        ({"ids": ...}, "damaged: it has neither 'ids' nor 'ids_file'"),
    ],
)
def test_a_file_that_was_changed_is_refused(saved, changes, message):
    with pytest.raises(ValueError, match=message):
        load_subset(edited(saved, **changes))


def test_a_file_of_another_data_set_is_refused(saved):
    with pytest.raises(ValueError, match=r"another data set \(its fingerprint is f{12}…, this data set's is 0{12}…\)"):
        load_subset(saved, "0" * 64)
    with pytest.raises(ValueError, match="speaks of 60 samples, the data set has 61"):
        load_subset(saved, PRINT, 61)


def test_what_is_no_subset_file_at_all(tmp_path):
    for text in ("[]", "{}", "3"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match="is not a subset file"):
            load_subset(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        load_subset(tmp_path / "b.json")
    with pytest.raises(FileNotFoundError):
        load_subset(tmp_path / "none.json")


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "gone"])
def test_a_damaged_binary_file_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(module, "INLINE", 10)
    path, binary = tmp_path / "subset.json", tmp_path / "subset.ids.npy"
    example().save(path)
    content = binary.read_bytes()
    if damage == "gone":
        binary.unlink()
    else:
        binary.write_bytes({"changed": content[:-8] + b"\x01" * 8, "cut": content[:-5], "empty": b""}[damage])
    with pytest.raises((ValueError, FileNotFoundError), match=r"hash|cannot be read|subset.ids.npy"):
        load_subset(path)
