"""Scores of samples as a file, and what that file refuses."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdprune
from kdprune.data import scores as module
from kdprune.data.scores import Scores, load_scores

PRINT = "f" * 64


def example(total: int = 60) -> Scores:
    values = np.linspace(-1, 1, total)
    values[[3, 7, 11]] = np.inf, -np.inf, np.nan
    labels = np.arange(total) % 3
    labels[5] = -1
    extra = {"mean_probability": np.linspace(0, 1, total)}
    return Scores(values, labels, PRINT, "dual(window=5)", "high", ("a", "ü", "c"), {"kind": "dynamics"}, extra)


@pytest.fixture
def saved(tmp_path):
    example().save(tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


def assert_same(one: Scores, other: Scores) -> None:
    for name in ("fingerprint", "scorer", "hard", "classes", "origin", "hash", "total"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(np.where(np.isnan(other.values), -1, one.labels), other.labels)
    assert one.extra.keys() == other.extra.keys()
    for name, column in other.extra.items():
        np.testing.assert_array_equal(np.where(np.isnan(other.values), np.nan, one.extra[name]), column)
        assert column.dtype == np.float32


@pytest.mark.parametrize("rows", [module.ROWS, 7])
def test_a_file_gives_back_what_was_saved(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(module, "ROWS", rows)
    scores, path = example(), tmp_path / "scores.parquet"
    scores.save(path)
    again = load_scores(path, PRINT, 60)
    assert_same(scores, again)
    assert again.values.dtype == np.float32
    assert again.labels.dtype == np.int64
    assert [file.name for file in tmp_path.iterdir()] == ["scores.parquet"]
    table = pq.read_table(path)
    assert table.column_names == ["sample_id", "label", "score", "mean_probability"]
    assert table["sample_id"].to_pylist() == [i for i in range(60) if i != 11]


def test_what_scores_are_made_of_is_checked():
    values, labels = np.arange(3.0), np.arange(3)
    for wrong, message in [
        ((values, labels, PRINT, "mine", "up"), "'up' given, allowed are high, low"),
        ((values[:, None], labels, PRINT, "mine", "high"), r"shape \(3, 1\)"),
        ((values[:0], labels[:0], PRINT, "mine", "high"), "N ≥ 1"),
        ((values.astype(str), labels, PRINT, "mine", "high"), "allowed are numbers"),
        ((values, labels[:2], PRINT, "mine", "high"), "for 3 scores"),
        ((values, labels * 1.0, PRINT, "mine", "high"), "float64"),
        ((values, labels, PRINT, "mine", "high", (), {}, {"label": values}), "'label'"),
        ((values, labels, PRINT, "mine", "high", (), {}, {"more": values[:2]}), "'more' of shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            Scores(*wrong)


def test_difficulty_is_high_where_a_sample_is_hard():
    values, labels = np.array([1.0, np.inf, -2.0]), np.zeros(3, dtype=int)
    assert Scores(values, labels, PRINT, "el2n", "high").difficulty.tolist() == [1, np.inf, -2]
    assert Scores(values, labels, PRINT, "aum", "low").difficulty.tolist() == [-1, -np.inf, 2]


def test_the_bits_of_a_nan_do_not_matter(tmp_path):
    other_nan = np.array([0xFFC00001], dtype=np.uint32).view(np.float32)[0]
    values = np.array([0.5, other_nan], dtype=np.float32)
    scores = Scores(values, np.zeros(2, dtype=int), PRINT, "el2n", "high")
    assert scores.hash == Scores(np.array([0.5, np.nan]), np.zeros(2, dtype=int), PRINT, "el2n", "high").hash
    scores.save(tmp_path / "a")
    assert load_scores(tmp_path / "a").hash == scores.hash


def test_whatever_a_file_holds_of_a_sample_is_part_of_what_identifies_it(tmp_path):
    """And nothing else is: the label of a sample that was not observed is not kept."""
    scores = example()
    labels, mean = scores.labels.copy(), scores.extra["mean_probability"].copy()
    labels[20], mean[20] = 0, 0.5
    others = [replace(scores, labels=labels), replace(scores, extra={"mean_probability": mean}),
              replace(scores, extra={"mean": scores.extra["mean_probability"]}), replace(scores, extra={})]  # fmt: skip
    assert len({one.hash for one in (scores, *others)}) == 5
    unobserved = scores.labels.copy()
    unobserved[11] = 1 - unobserved[11]
    assert replace(scores, labels=unobserved).hash == scores.hash


def test_all_may_be_unobserved(tmp_path):
    Scores(np.full(3, np.nan), np.zeros(3, dtype=int), PRINT, "el2n", "high").save(tmp_path / "a")
    assert np.isnan(load_scores(tmp_path / "a").values).all()


floats = st.floats(width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(floats, st.integers(-1, 2**31 - 1), floats), min_size=1, max_size=30), st.text(max_size=5))
def test_any_scores_come_back(tmp_path_factory, rows, text):
    values, labels, extra = (np.array(column) for column in zip(*rows, strict=True))
    scores = Scores(values, labels, text, text, "low", (text,), {text: [text, None, 1.5]}, {"x": extra})
    path = tmp_path_factory.mktemp("any") / "scores"
    scores.save(path)
    assert_same(scores, Scores.load(path))


def test_scores_of_another_data_set_are_refused(saved):
    with pytest.raises(ValueError, match=r"another data set \(its fingerprint is f{12}…, this data set's is 0{12}…\)"):
        load_scores(saved, "0" * 64)
    with pytest.raises(ValueError, match="scores of 60 samples, the data set has 61"):
        load_scores(saved, PRINT, 61)


def test_what_is_no_score_file_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        load_scores(tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError):
        load_scores(tmp_path)
    for content in (b"", b"PAR1", b"not parquet at all", b"PAR1" * 10):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as parquet"):
            load_scores(tmp_path / "a")
    pq.write_table(pa.table({"sample_id": [0, 1], "score": [0.1, 0.2]}), tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"is not a score file: .* kdprune\.Scores"):
        load_scores(tmp_path / "theirs")
    for metadata in (b"null", b"[]", b"{", b"7", b'{"format": "kdprune subset 1"}', b"[" * 100_000, b"\xff"):
        pq.write_table(pa.table({"sample_id": [0]}).replace_schema_metadata({"kdprune": metadata}), tmp_path / "b")
        with pytest.raises(ValueError, match="is not a score file"):
            load_scores(tmp_path / "b")


def test_a_file_that_was_cut_short_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match="cut short or changed"):
            load_scores(tmp_path / "cut")


def test_a_byte_that_changed_is_found_or_does_not_matter(saved, tmp_path):
    scores, content = load_scores(saved), saved.read_bytes()
    numbers, found = np.random.default_rng(0), 0
    for place in numbers.choice(len(content), 400, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << int(numbers.integers(8))
        (tmp_path / "changed").write_bytes(changed)
        try:
            assert_same(scores, load_scores(tmp_path / "changed"))
        except ValueError:
            found += 1
    assert found > 100


# --- what someone could write by hand ---------------------------------------------------------------------------------


def written(path, columns=None, types=None, **changes):
    """A score file with consistent hashes, but for what is changed."""
    Scores(np.array([0.5, 1.5, 2.5]), np.arange(3), PRINT, "el2n", "high").save(path)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"kdprune"])
    if columns is not None:
        arrays = {"sample_id": [0, 1, 2], "label": [0, 1, 2], "score": [0.5, 1.5, 2.5]} | columns
        kinds = {"sample_id": pa.int64(), "label": pa.int32(), "score": pa.float32()} | (types or {})
        table = pa.table({name: pa.array(v, kinds.get(name)) for name, v in arrays.items() if v is not None})
        about["scored"] = table.num_rows
    about = {name: value for name, value in (about | changes).items() if value is not ...}
    if "metadata_hash" not in changes:
        about["metadata_hash"] = module._hash_of(about)
    pq.write_table(table.replace_schema_metadata({"kdprune": json.dumps(about)}), path)
    return path


def test_the_file_by_hand_is_a_good_one(tmp_path):
    assert load_scores(written(tmp_path / "a", {})).values.tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sample_id": [0, 1, 1]}, "ascend without repetition from 0 to 2; wrong are 1"),
        ({"sample_id": [2, 1, 0]}, "wrong are 1, 0"),
        ({"sample_id": [0, 1, 3]}, "wrong are 3"),
        ({"sample_id": [-1, 0, 1]}, "wrong are -1"),
        ({"sample_id": [5, -(2**63), 1]}, "wrong are 5, -9223372036854775808"),  # their difference overflows
        ({"sample_id": [0, 1, 2**63 - 1]}, "wrong are 9223372036854775807"),
        ({"score": [0.5, 1.5, 9.0]}, "scores or labels do not match the hash"),
        ({"label": [0, 2, 1]}, "scores or labels do not match the hash"),
        ({"score": [0.5, None, 2.5]}, "rows without a value"),
        ({"sample_id": [0, 1], "label": [0, 1], "score": [0.5, 1.5]}, "do not match the hash"),  # a row is missing
        ({"score": None}, r"its columns are sample_id \(int64\), label \(int32\), and should be"),
        ({"more": ["a", "b", "c"]}, r"score \(float\), more \(string\), and should be"),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        load_scores(written(tmp_path / "a", columns))


def test_columns_of_other_types_are_refused(tmp_path):
    for name, kind in [("sample_id", pa.float32()), ("sample_id", pa.int32()), ("score", pa.float64())]:
        with pytest.raises(ValueError, match=r"sample_id \(int64\), label \(int32\), score \(float\)"):
            load_scores(written(tmp_path / "a", {}, {name: kind}))
    kinds = [pa.int64(), pa.int32(), pa.float32(), pa.float32()]
    names = ["sample_id", "label", "score", "score"]
    twice = pa.table([pa.array([0, 1, 2], kind) for kind in kinds], names=names)
    about = pq.read_schema(written(tmp_path / "a", {})).metadata
    pq.write_table(twice.replace_schema_metadata(about), tmp_path / "twice")
    with pytest.raises(ValueError, match=r"score \(float\), score \(float\), and should be"):
        load_scores(tmp_path / "twice")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": ...}, "'total' is None, and should be int"),
        ({"total": "3"}, "'total' is '3'"),
        ({"total": True}, "'total' is True"),
        ({"total": 3.0}, "'total' is 3.0"),
        ({"total": 0}, "it says 3 of 0 samples"),
        ({"total": 2}, "it says 3 of 2 samples"),
        ({"total": 2**60}, "'total' is 1,152,921,504,606,846,976, with only 3 rows"),  # no arrays of this length
        ({"total": 10**400}, "with only 3 rows"),
        ({"scored": 2}, "3 rows, and it says 2"),
        ({"hard": "up"}, "'hard' is 'up'"),
        ({"hard": ["high"]}, "'hard' is"),
        ({"classes": [1]}, "'classes' are"),
        ({"classes": "abc"}, "'classes' is 'abc'"),
        ({"origin": []}, "'origin' is"),
        ({"extra": ["more"]}, "should be .*, more"),
        ({"extra": [["more"], None]}, "should be .*, None"),
        ({"hash": "0"}, "do not match the hash"),
        ({"hash": None}, "'hash' is None"),
        ({"scorer": "forgetting", "metadata_hash": "0"}, "metadata do not match their hash"),
        ({"dataset_fingerprint": 7}, "'dataset_fingerprint' is 7"),
        ({"format": "kdprune scores 1"}, "is not a score file"),
    ],
)
def test_metadata_that_cannot_be_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_scores(written(tmp_path / "a", None, **changes))


def test_scores_are_public():
    assert kdprune.Scores is Scores
