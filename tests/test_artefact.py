"""Made once, kept, found again by contents; one owner at a time, whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.artefact import FILE, Artefact, damage, differences, key_hash, obtain

KEY = {"data": "a" * 64, "train": {"lr": 0.1, "epochs": 15, "milestones": [1, 2]}, "precision": "no"}
scalars = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False) | st.text(max_size=5)
keys = st.dictionaries(
    st.text("abc", min_size=1), scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text("xyz"), scalars)
)


def made(folder: Path, key: dict, text: str = "result") -> list[str]:
    """Obtain an artefact whose one file holds `text`; what was made."""
    calls = []

    def make() -> list[str]:
        calls.append(text)
        (folder / "file").write_text(text)
        return ["file"]

    obtain(Artefact(folder, "a thing", key), make)
    return calls


def test_it_is_made_once_and_found_again(tmp_path):
    assert made(tmp_path / "a", KEY) == ["result"]
    assert made(tmp_path / "a", json.loads(json.dumps(KEY))) == []
    assert made(tmp_path / "a", {**KEY, "train": {**KEY["train"], "epochs": 15.0}}) == []


@given(keys, keys)
def test_equal_keys_are_those_without_differences_and_with_one_hash(a, b):
    assert differences(a, a) == []
    assert (key_hash(a) == key_hash(b)) == (differences(a, b) == [])
    assert key_hash(dict(reversed(list(a.items())))) == key_hash(a)
    assert differences(a, {**a, "a setting of a later version": None, "a group": {"of them": None}}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "b" * 64}, "data: aaaaaaaaaaaa… there, bbbbbbbbbbbb… asked for"),
        ({"train": {**KEY["train"], "lr": 0.2}}, "train.lr: 0.1 there, 0.2 asked for"),
        ({"more": 1}, "more: nothing there, 1 asked for"),
    ],
)
def test_something_else_is_refused_by_what_differs_and_left_alone(tmp_path, change, said):
    made(tmp_path / "a", KEY)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match="holds a thing of something else") as refused:
        made(tmp_path / "a", {**KEY, **change})
    assert said in str(refused.value)
    assert str(refused.value).count(" there, ") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_what_failed_is_not_there_and_its_place_is_free_until_there_is_something_to_lose(tmp_path):
    artefact = Artefact(tmp_path / "a", "a thing", KEY)
    with pytest.raises(ZeroDivisionError):
        obtain(artefact, lambda: 1 / 0)
    assert not artefact.finished
    other = {**KEY, "precision": "bf16"}
    assert not Artefact(tmp_path / "a", "a thing", other).finished
    assert json.loads((tmp_path / "a" / FILE).read_text())["key"] == KEY  # it may have an owner who is about to begin
    assert made(tmp_path / "a", other) == ["result"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("of a user")
    with pytest.raises(ValueError, match=rf"holds mine, and no {FILE}"):
        made(tmp_path / "b", KEY)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"key": 1}', '{"key": {}, "files": []}', "nonsense", "[" * 99_999]
)
def test_a_damaged_record_is_named(tmp_path, content):
    made(tmp_path / "a", KEY)
    (tmp_path / "a" / FILE).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path / "a")):
        made(tmp_path / "a", KEY)


def test_damage_is_found_file_by_file(tmp_path):
    made(tmp_path / "a", KEY)
    assert damage(tmp_path / "a") == []
    (tmp_path / "a" / "file").write_text("resulu")
    assert "digest differs" in damage(tmp_path / "a")[0]
    (tmp_path / "a" / "file").unlink()
    assert "is missing" in damage(tmp_path / "a")[0]


def _make_slowly(folder: Path, counter: Path) -> None:
    def make() -> list[str]:
        with open(counter, "a") as file:
            file.write("made\n")
        time.sleep(0.5)
        (folder / "file").write_text("x")
        return ["file"]

    obtain(Artefact(folder, "a thing", KEY), make)


def test_of_processes_that_ask_at_once_one_makes_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_make_slowly, args=(tmp_path / "a", tmp_path / "count")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "made\n"


HOLD = """
import sys, time
from pathlib import Path
from kdprune.artefact import Artefact
with Artefact(Path(sys.argv[1]), "a thing", {}).owned():
    print("owned", flush=True)
    time.sleep(100)
"""


def test_a_dead_owner_leaves_no_lock_and_a_living_one_is_named(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"owned\n"
        asking = multiprocessing.get_context("spawn").Process(
            target=_make_slowly, args=(tmp_path / "a", tmp_path / "c")
        )
        asking.start()
        time.sleep(0.5)
        assert (tmp_path / "a" / ".lock").read_text().startswith(f"process {holder.pid} on ")
        assert not (tmp_path / "c").exists()
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    asking.join(60)
    assert asking.exitcode == 0
    assert (tmp_path / "c").exists()


def test_a_finished_artefact_whose_files_were_deleted_is_not_free_for_another(tmp_path):
    made(tmp_path / "a", KEY)
    (tmp_path / "a" / "file").unlink()
    with pytest.raises(ValueError, match="precision: no there, bf16 asked for"):
        made(tmp_path / "a", {**KEY, "precision": "bf16"})
