"""The kept part of a training set as a file, and what that file refuses."""

import json

import numpy as np
import pytest

from kdprune.data import subset as module
from kdprune.data.subset import Subset, class_ids, load_subset

PRINT = "f" * 64


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


# --- the file ---------------------------------------------------------------------------------------------------------


def example(count: int = 60):
    chosen = {"selector": "random", "keep_fraction": 0.5, "balanced": True, "seed": 5}
    return Subset(np.arange(count)[1::2], count, PRINT, chosen, (4, 10))


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
    assert (again.total, again.fingerprint, again.chosen, again.dropped) == (60, PRINT, subset.chosen, (4, 10))
    assert again.keep_fraction == 0.5
    assert {file.name for file in tmp_path.iterdir()} == {"subset.json", *(["subset.ids.npy"] if inline == 10 else [])}
    content = json.loads(path.read_text())
    assert content["kept"] == 30
    assert content["chosen"] == subset.chosen


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
        ({"ids": [1.5]}, "its ids cannot be read"),
        ({"ids": [True]}, "its ids cannot be read"),
        ({"ids": [2**63]}, "its ids cannot be read"),
        ({"ids": {"0": 1}}, "its ids cannot be read"),
        ({"ids": None}, "its ids cannot be read"),
        ({"total": ...}, "damaged: it has no 'total'"),
        ({"total": "60"}, "'total' is '60'"),
        ({"total": True}, "'total' is True"),
        ({"total": 0}, "'total' is 0"),
        ({"total": 60.0}, "'total' is 60.0"),
        ({"hash": 7}, "'hash' is 7"),
        ({"hash": None}, "'hash' is None"),
        ({"dataset_fingerprint": ["f"]}, "'dataset_fingerprint' is"),
        ({"chosen": "random"}, "'chosen' is 'random'"),
        ({"dropped": 3}, "'dropped' is 3"),
        ({"dropped": ["4"]}, "'dropped' is"),
        ({"dropped": [-1]}, "'dropped' is"),
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
    (tmp_path / "c.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid JSON"):
        load_subset(tmp_path / "c.json")
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


@pytest.mark.parametrize(
    "name", ["../subset.ids.npy", "a/subset.ids.npy", "a\\b.npy", "C:b.npy", "", ".", "..", "a\0.npy", 3, None, ["a"]]
)
def test_the_ids_stand_in_the_same_folder_or_nowhere(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, "INLINE", 10)
    path = tmp_path / "folder" / "subset.json"
    example().save(path)
    path.with_suffix(".ids.npy").rename(tmp_path / "subset.ids.npy")  # where the first of these names points
    for other in (name, str(tmp_path / "subset.ids.npy")):
        with pytest.raises(ValueError, match=r"'ids_file' is .* in the same folder"):
            load_subset(edited(path, ids_file=other))


@pytest.mark.parametrize("array", [np.array([1.0]), np.array(["1"]), np.array([True]), np.array([1], dtype=np.uint64)])
def test_a_binary_file_of_something_else_is_refused(tmp_path, monkeypatch, array):
    monkeypatch.setattr(module, "INLINE", 10)
    example().save(tmp_path / "subset.json")
    np.save(tmp_path / "subset.ids.npy", array)
    with pytest.raises(ValueError, match="its ids cannot be read"):
        load_subset(tmp_path / "subset.json")
