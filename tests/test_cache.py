"""Cached targets on disk: what counts, what is refused, and who may be killed when.

Shapes: N samples of a request, W words of an entry.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kdprune.artefact import FILE
from kdprune.teachers.cache import OPEN_VIEWS, TargetCache
from kdprune.teachers.checksums import checksums, seed_of
from kdprune.teachers.entries import AllLogits

KEY = {"teacher": {"weights": "a" * 64, "name": "net"}, "views": {"seed": 0}, "precision": "float32"}
TOTAL, CLASSES = 1000, 5
ENTRY, COLUMN = 2 * CLASSES, 4096  # bytes of an entry, and of the checksums before the entries
IDS = np.arange(TOTAL)


def opened(folder: Path, key: dict = KEY) -> TargetCache:
    return TargetCache(folder, key, TOTAL, AllLogits(CLASSES))


def truth(view: int, ids: np.ndarray) -> np.ndarray:
    """What belongs there, int16 N×W."""
    return ((np.arange(CLASSES) + 7 * ids[:, None] + 1001 * view) % 30_011 - 15_000).astype(np.int16)


def fill(cache: TargetCache, view: int, ids: np.ndarray) -> None:
    cache.write(view, ids, truth(view, ids))


def whole(cache: TargetCache, view: int, ids: np.ndarray) -> bool:
    """Whether all these entries are there and right."""
    words, stored = cache.read(view, ids)
    return bool(stored.all() and cache.have(view, ids).all() and (words == truth(view, ids)).all())


def file_of(folder: Path, view: int = 0) -> Path:
    return folder / f"view_{view:05d}.bin"


def change(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def failing_after(calls: int, error: int = errno.ENOSPC) -> Callable[..., int]:
    """`os.pwrite` on a disk that is full after so many calls: the last one that succeeds writes a part."""
    left, original = itertools.count(calls, -1), os.pwrite

    def pwrite(file: int, data: memoryview, offset: int) -> int:
        now = next(left)
        if now <= 0:
            raise OSError(error, os.strerror(error))
        return original(file, data[: len(data) // 2] if now == 1 else data, offset)

    return pwrite


@settings(max_examples=30)
@given(st.permutations(range(40)), st.lists(st.integers(1, 39), max_size=6), st.integers(0, 2**16))
def test_what_is_written_is_read_whatever_the_order_and_the_batches(tmp_path_factory, order, cuts, view):
    folder = tmp_path_factory.mktemp("cache")
    ids = 3 * np.array(order) // 2  # neighbours and gaps
    writer, reader = opened(folder), opened(folder)
    for part in np.split(ids, sorted(cuts)):
        fill(writer, view, part)
    others = np.setdiff1d(IDS, ids)
    for cache in (writer, reader, opened(folder)):
        assert whole(cache, view, ids[::-1])
        assert not cache.have(view, others).any()
        assert not cache.read(view, others)[1].any()
        assert not cache.have(view + 1, IDS).any()


class Cache(RuleBasedStateMachine):
    """A cache against a set of (view, id), through any sequence of writing, damaging and opening anew."""

    VIEWS = OPEN_VIEWS + 3
    views = st.integers(0, VIEWS - 1)
    ids = st.lists(st.integers(0, TOTAL - 1), min_size=1, max_size=8).map(np.array)  # the same id twice, too

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.cache = opened(self.folder)
        self.written: set[tuple[int, int]] = set()

    @rule(view=views, ids=ids)
    def write(self, view: int, ids: np.ndarray) -> None:
        fill(self.cache, view, ids)
        self.written |= {(view, int(i)) for i in ids}

    @rule(view=views, ids=ids)
    def damage(self, view: int, ids: np.ndarray) -> None:
        for i in ids:
            if (view, int(i)) in self.written:
                path, offset = file_of(self.folder, view), COLUMN + ENTRY * int(i) + 3
                change(path, offset, bytes([path.read_bytes()[offset] ^ 1]))
                self.written.discard((view, int(i)))

    @rule()
    def open_again(self) -> None:
        self.cache = opened(self.folder)

    @invariant()
    def what_counts_is_right_and_nothing_is_lost(self) -> None:
        for view in range(self.VIEWS):
            words, stored = self.cache.read(view, IDS)
            assert {(view, int(i)) for i in np.flatnonzero(stored)} == {one for one in self.written if one[0] == view}
            assert (words[stored] == truth(view, IDS[stored])).all()
        assert len(self.cache._open) <= OPEN_VIEWS

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_a_checksum_finds_every_single_bit_and_every_entry_in_another_place():
    rng = np.random.default_rng(0)
    for words_per_entry in (1, 7, 100):
        words = rng.integers(-(2**15), 2**15, (1, words_per_entry)).astype(np.int16)
        flipped = np.repeat(words, 16 * words_per_entry, 0).view(np.uint16)
        at = np.arange(len(flipped))
        flipped[at, at // 16] ^= (1 << (at % 16)).astype(np.uint16)
        (expected,) = checksums(words, np.array([3]), seed_of(9))
        assert (checksums(flipped.view(np.int16), np.full(len(flipped), 3), seed_of(9)) != expected).all()
        elsewhere = checksums(np.repeat(words, 10_000, 0), np.arange(10_000), seed_of(9))
        assert len(np.unique(elsewhere)) == 10_000
        assert elsewhere[3] == expected
        assert checksums(words, np.array([3]), seed_of(10)) != expected


def test_checksums_are_those_of_the_definition_for_ever():
    """Written out in whole numbers; files of today are read by later versions, on other machines."""
    words, ids, seed = np.arange(-6, 6, dtype=np.int16).reshape(2, 6), np.array([0, 2**40]), 2**64 - 5
    stream = hashlib.shake_128(b"kdprune cached targets").digest(8 * 7)
    *a, last = (int.from_bytes(stream[8 * j : 8 * j + 8], "little") | 1 for j in range(7))
    sums = [
        sum(m * (int(x) % 2**16) for m, x in zip(a, row, strict=True)) + last * int(i) + seed
        for row, i in zip(words, ids, strict=True)
    ]
    assert checksums(words, ids, seed).tolist() == [max(1, total % 2**64 >> 32) for total in sums]


def test_an_entry_of_another_view_or_cache_does_not_count(tmp_path, caplog):
    fill(opened(tmp_path / "a"), 0, IDS)
    for folder, view, key in (("a", 1, KEY), ("b", 0, {**KEY, "precision": "bfloat16"})):
        cache = opened(tmp_path / folder, key)
        shutil.copy(file_of(tmp_path / "a"), file_of(tmp_path / folder, view))
        assert not cache.read(view, IDS)[1].any()
        fill(cache, view, IDS)
        assert whole(cache, view, IDS)


def test_damage_is_said_once_and_healed_by_writing(tmp_path, caplog):
    cache = opened(tmp_path)
    fill(cache, 0, IDS)
    change(file_of(tmp_path), COLUMN + ENTRY * 700, b"\xff" * ENTRY)
    change(file_of(tmp_path), 4 * 20, b"\xff" * 4)  # a checksum
    assert cache.have(0, IDS).all()  # planning reads no entries
    for _ in range(2):
        assert np.flatnonzero(~cache.read(0, IDS)[1]).tolist() == cache.damaged(0).tolist() == [20, 700]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file_of(tmp_path)) in caplog.text
    fill(cache, 0, np.array([20, 700]))
    assert whole(cache, 0, IDS)
    assert not len(cache.damaged(0))


def test_many_views_hold_few_files_open(tmp_path):
    cache = opened(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    for view in range(50):
        fill(cache, view, IDS[:3])
    assert all(whole(cache, view, IDS[:3]) for view in range(50))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + OPEN_VIEWS


@settings(max_examples=25)
@given(st.sets(st.integers(0, 9_999), max_size=300), st.sets(st.integers(0, 9_999), max_size=300), st.integers(1, 3000))
def test_the_announced_size_is_what_the_disk_then_takes(tmp_path_factory, first, second, classes):
    folder = tmp_path_factory.mktemp("cache")
    cache = TargetCache(folder, KEY, 10_000, AllLogits(classes))
    used = 0
    for chosen in (first, second, first):
        ids = np.array(sorted(chosen), dtype=np.int64)
        needed = cache.required_bytes(2, ids)
        for view in range(2):
            if len(ids):
                cache.write(view, ids, np.ones((len(ids), classes), dtype=np.int16))
        taken = sum(path.stat().st_blocks * 512 for path in folder.glob("view*"))
        slack = 8 * 4096  # in which a file system may keep where the pages are
        assert used + needed <= taken <= used + needed + slack or not len(ids)
        used = taken
    for path in folder.glob("view*"):
        assert path.stat().st_size == cache.bytes_per_view


@pytest.mark.parametrize("length", [COLUMN + 1, COLUMN + ENTRY * TOTAL - 1, COLUMN + ENTRY * TOTAL + 1])
def test_a_file_of_the_wrong_length_is_refused_by_name(tmp_path, length):
    fill(opened(tmp_path), 0, IDS)
    os.truncate(file_of(tmp_path), length)
    for ask in (lambda cache: cache.read(0, IDS), lambda cache: cache.required_bytes(1, IDS)):
        with pytest.raises(ValueError, match=rf"{file_of(tmp_path)} is truncated: {length:,} bytes, 14,096 expected"):
            ask(opened(tmp_path))
    file_of(tmp_path).unlink()  # what the message says helps
    assert not opened(tmp_path).have(0, IDS).any()


@pytest.mark.parametrize("length", [0, 1, COLUMN])
def test_a_file_without_room_for_entries_is_one_that_is_being_made(tmp_path, length):
    cache = opened(tmp_path)
    file_of(tmp_path).write_bytes(bytes(length))
    assert not cache.have(0, IDS).any()
    fill(cache, 0, IDS)
    assert whole(cache, 0, IDS)


def test_a_cache_of_something_else_is_refused_by_name(tmp_path):
    fill(opened(tmp_path), 0, IDS)
    for other, said in (({**KEY, "precision": "bfloat16"}, "precision: float32 there, bfloat16 asked for"),
                        ({**KEY, "views": {"seed": 1}}, "views.seed: 0 there, 1 asked for"),
                        ({**KEY, "subset": "b" * 64}, "subset: nothing there, bbbbbbbbbbbb… asked for")):  # fmt: skip
        with pytest.raises(ValueError, match=said) as refused:
            opened(tmp_path, other)
        assert str(refused.value).count(" there, ") == 1
        assert "--teacher.cache" in str(refused.value)
    assert whole(opened(tmp_path), 0, IDS)  # nothing was changed
    (tmp_path / FILE).unlink()
    with pytest.raises(ValueError, match=FILE):
        opened(tmp_path)


def test_of_two_different_runs_that_begin_at_once_one_is_refused(tmp_path):
    """Both find the folder empty; who makes the first file has it."""
    slow, fast = opened(tmp_path), opened(tmp_path, {**KEY, "precision": "bfloat16"})
    fill(fast, 0, IDS)
    with pytest.raises(ValueError, match="precision"):
        fill(slow, 1, IDS)
    assert whole(fast, 0, IDS)
    assert not slow.read(0, IDS)[1].any()


def test_a_cache_may_lie_where_nothing_can_be_written(tmp_path, monkeypatch):
    """If all that is asked for is there; the rest is refused before it is needed."""
    fill(opened(tmp_path), 0, IDS[:10])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write whatever the mode is
    shared = opened(tmp_path)
    assert shared.required_bytes(1, IDS[:10]) == 0
    assert whole(shared, 0, IDS[:10])
    for views, ids in ((1, IDS[:11]), (2, IDS[:10])):
        with pytest.raises(PermissionError, match="lacks entries, and may not be written"):
            shared.required_bytes(views, ids)


@pytest.mark.parametrize("calls", range(7))
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_nothing_wrong(tmp_path, monkeypatch, calls, error):
    """Three runs of neighbours, so six writes."""
    cache, ids = opened(tmp_path), np.array([1, 2, 3, 10, 11, 500])
    fill(cache, 0, IDS[600:])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing_after(calls, error))
        with pytest.raises(OSError, match=r"60 bytes, .* are free .*--teacher\.views") as refused:
            fill(cache, 0, ids)
    assert refused.value.errno == error
    assert str(tmp_path) in str(refused.value)
    words, stored = opened(tmp_path).read(0, IDS)
    assert (words[stored] == truth(0, IDS[stored])).all()
    assert stored[600:].all()
    assert not stored[ids].all()
    fill(cache, 0, ids)
    assert whole(cache, 0, np.concatenate([ids, IDS[600:]]))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="there is no call that could fail")
def test_a_disk_that_is_full_when_a_file_is_made_leaves_none_that_looks_made(tmp_path, monkeypatch):
    """In /dev/shm, reading a checksum that has no space would end the process with SIGBUS."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = opened(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="are free"):
            fill(cache, 0, IDS)
    assert file_of(tmp_path).stat().st_size == 0
    assert not cache.have(0, IDS).any()
    fill(cache, 0, IDS)
    assert whole(cache, 0, IDS)


def test_an_error_that_is_not_about_space_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", failing_after(0, errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        fill(opened(tmp_path), 0, IDS)


def keep_filling(folder: Path, seed: int, turns: int, told: Connection | None) -> None:
    cache = opened(folder)
    order = np.random.default_rng(seed).permutation(IDS)
    for _ in range(turns):
        for view in range(4):
            for part in np.array_split(order, 30):
                fill(cache, view, part)
                if told is not None:
                    told.send(view)


def test_processes_may_fill_at_once_and_be_killed(tmp_path):
    """Two fill the same folder, each in its own order; a third is killed in the middle of it."""
    fork = multiprocessing.get_context("fork")  # what this process has imported is there at once
    heard, told = fork.Pipe(duplex=False)
    processes = [
        fork.Process(target=keep_filling, args=(tmp_path, *how), daemon=True)
        for how in ((1, 1, None), (2, 1, None), (3, 10_000, told))
    ]
    *both, killed = processes
    try:
        for process in processes:
            process.start()
        assert {heard.recv() for _ in range(40)} == {0, 1}
        os.kill(killed.pid, signal.SIGKILL)
        killed.join(30)
        cache = opened(tmp_path)
        for view in range(4):
            words, stored = cache.read(view, IDS)
            assert (words[stored] == truth(view, IDS[stored])).all()
        assert cache.have(0, IDS).all()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, -signal.SIGKILL]
    finally:
        for process in processes:
            process.kill()
            process.join(30)
    cache = opened(tmp_path)
    assert all(whole(cache, view, IDS) for view in range(4))
    assert sorted(os.listdir(tmp_path)) == sorted([FILE, *(file_of(tmp_path, view).name for view in range(4))])
