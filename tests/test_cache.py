"""Cached targets on disk: what counts, what is refused, and who may be killed when.

Shapes: K kept samples, V views, W words of an entry.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kdprune.teachers import cache as cache_module
from kdprune.teachers.cache import HEADER, OPEN_VIEWS, CacheKey, TargetCache
from kdprune.teachers.entries import AllLogits

KEY = CacheKey("a" * 64, "3 x 32 x 32", "b" * 64, "c" * 64, "crop, 32 px", 0, AllLogits(5).about, "float32")
IDS = np.sort(np.random.default_rng(0).choice(10**6, 300, replace=False))
CLASSES = 5


def opened(folder: Path, ids: np.ndarray = IDS, key: CacheKey = KEY) -> TargetCache:
    return TargetCache(folder, key, ids, AllLogits(CLASSES))


def truth(view: int, rows: np.ndarray) -> np.ndarray:
    """What belongs there, int16 N×W, never zero."""
    return ((np.arange(CLASSES) + 7 * rows[:, None] + 1001 * view) % 30_011 + 1).astype(np.int16)


def fill(cache: TargetCache, view: int, rows: np.ndarray) -> None:
    cache.write(view, rows, truth(view, rows))


def same(cache: TargetCache, view: int, rows: np.ndarray) -> bool:
    return bool((cache.read(view, rows) == truth(view, rows)).all())


ROWS = np.arange(len(IDS))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(40)), st.lists(st.integers(1, 39), max_size=6), st.integers(0, 2**16))
def test_what_is_written_is_read_whatever_the_order_and_the_batches(tmp_path_factory, order, cuts, view):
    folder = tmp_path_factory.mktemp("cache")
    ids = IDS[:40]
    writer, reader = opened(folder, ids), opened(folder, ids)
    for part in np.split(np.array(order), sorted(cuts)):
        fill(writer, view, writer.rows(ids[part]))
    writer.flush()
    for cache in (writer, reader, opened(folder, ids)):
        asked = np.array(order)[::-1]
        assert cache.have(view, asked).all()
        assert same(cache, view, asked)


class Cache(RuleBasedStateMachine):
    """A cache against a set of (view, row), through any sequence of writing, flushing and opening anew."""

    VIEWS = OPEN_VIEWS + 3

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.cache = opened(self.folder)
        self.on_disk: set[tuple[int, int]] = set()
        self.written: set[tuple[int, int]] = set()

    @rule(view=st.integers(0, VIEWS - 1), rows=st.lists(st.integers(0, len(IDS) - 1), min_size=1, max_size=8))
    def write(self, view: int, rows: list[int]) -> None:
        fill(self.cache, view, np.array(rows))
        self.written |= {(view, row) for row in rows}

    @rule()
    def flush(self) -> None:
        self.cache.flush()
        self.on_disk |= self.written
        self.written = set()

    @rule()
    def kill_and_open_again(self) -> None:
        """What was not flushed need not count, and what counts is right."""
        self.cache = opened(self.folder)
        self.on_disk |= {(view, row) for view, row in self.written if self.cache.have(view, np.array([row]))[0]}
        self.written = set()

    @invariant()
    def what_counts_is_right(self) -> None:
        for view in {view for view, _ in self.on_disk | self.written}:
            there = self.cache.have(view, ROWS)
            assert {row for v, row in self.on_disk if v == view} <= set(np.flatnonzero(there))
            assert {(view, int(row)) for row in np.flatnonzero(there)} <= self.on_disk | self.written
            assert same(self.cache, view, ROWS[there])
        assert len(self.cache._open) <= OPEN_VIEWS

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_an_entry_counts_from_the_moment_it_is_flushed(tmp_path):
    cache = opened(tmp_path)
    fill(cache, 3, ROWS[:10])
    assert not cache.have(3, ROWS).any()
    assert not opened(tmp_path).have(3, ROWS).any()
    cache.flush()
    assert cache.have(3, ROWS).tolist() == opened(tmp_path).have(3, ROWS).tolist() == [True] * 10 + [False] * 290
    assert not cache.have(2, ROWS).any()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [HEADER, "view_00003.bin"]


def test_asking_makes_no_file(tmp_path):
    assert not opened(tmp_path / "deep" / "folder").have(0, ROWS).any()
    assert [path.name for path in (tmp_path / "deep" / "folder").iterdir()] == [HEADER]


def test_the_entry_is_on_the_disk_before_its_flag(tmp_path, monkeypatch):
    """A machine that stops between the two must not find a flag without an entry."""
    cache = opened(tmp_path)
    fill(cache, 0, ROWS)
    synced = []
    monkeypatch.setattr(np.memmap, "flush", lambda mapped: synced.append(mapped[: len(IDS)].any()))
    cache.flush()
    assert synced == [False]
    assert cache.have(0, ROWS).all()


def test_many_views_hold_few_files_open(tmp_path):
    cache = opened(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for view in range(50):
        fill(cache, view, ROWS[:3])
    cache.flush()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + OPEN_VIEWS
    assert all(cache.have(view, ROWS[:3]).all() and same(cache, view, ROWS[:3]) for view in range(50))


def test_its_size_is_known_and_taken_before_anything_is_written(tmp_path):
    cache = opened(tmp_path)
    assert cache.bytes_per_view == 4096 + 300 * 2 * CLASSES  # a page of flags for up to 4,096 samples
    assert cache.missing_bytes(3) == 3 * cache.bytes_per_view
    fill(cache, 1, ROWS[:1])
    file = (tmp_path / "view_00001.bin").stat()
    assert file.st_size == cache.bytes_per_view
    assert file.st_blocks * 512 >= cache.bytes_per_view
    assert stat.S_IMODE(file.st_mode) == 0o644
    assert cache.missing_bytes(3) == 2 * cache.bytes_per_view


@pytest.mark.parametrize("change", [-1, -4096, 1])
def test_a_file_of_the_wrong_length_is_refused_by_name(tmp_path, change):
    cache = opened(tmp_path)
    fill(cache, 0, ROWS)
    cache.flush()
    path = tmp_path / "view_00000.bin"
    os.truncate(path, cache.bytes_per_view + change)
    with pytest.raises(ValueError, match=rf"{path} is truncated: .* bytes, {cache.bytes_per_view:,} expected"):
        opened(tmp_path).have(0, ROWS)
    path.unlink()  # what the message says helps
    assert not opened(tmp_path).have(0, ROWS).any()


@pytest.mark.parametrize(
    ("field", "other"),
    [("teacher", "d" * 64), ("input", "1 x 28 x 28"), ("data", "d" * 64), ("subset", "d" * 64),
     ("views", "flip, 32 px"), ("seed", 1), ("entries", "float16 logits, the 2 largest of 5 classes")],
)  # fmt: skip
def test_a_cache_of_something_else_is_refused_by_name(tmp_path, field, other):
    opened(tmp_path)
    with pytest.raises(ValueError, match=f"holds targets of something else: {field} ") as refused:
        opened(tmp_path, key=replace(KEY, **{field: other}))
    said = str(refused.value)
    assert said.count(" there, ") == 1
    assert str(other)[:12] in said
    assert str(asdict(KEY)[field])[:12] in said
    assert "--teacher.cache" in said
    opened(tmp_path)  # nothing was changed


@pytest.mark.parametrize("content", ["{}", "[]", '{"key": 1}', "", "nonsense"])
def test_a_damaged_header_is_refused_by_name(tmp_path, content):
    opened(tmp_path)
    (tmp_path / HEADER).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path / HEADER)):
        opened(tmp_path)


def test_entries_of_unknown_origin_are_refused(tmp_path):
    fill(opened(tmp_path), 0, ROWS)
    (tmp_path / HEADER).unlink()
    with pytest.raises(ValueError, match=f"{HEADER} is missing"):
        opened(tmp_path, key=replace(KEY, teacher="d" * 64))


def test_the_header_can_be_read_by_a_person(tmp_path):
    opened(tmp_path)
    about = json.loads((tmp_path / HEADER).read_text())
    assert about["key"] == asdict(KEY)
    assert about["kept"] == len(IDS)


def test_a_cache_may_lie_where_nothing_can_be_written(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    fill(cache, 0, ROWS[:10])
    cache.flush()
    (tmp_path / "view_00000.bin").chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write whatever the mode is
    shared = opened(tmp_path)
    assert shared.have(0, ROWS[:10]).all()
    assert same(shared, 0, ROWS[:10])
    with pytest.raises(PermissionError, match=r"view_00000\.bin lacks entries"):
        fill(shared, 0, ROWS[10:])
    with pytest.raises(PermissionError, match=r"lacks entries, and may not be written"):
        shared.check(1)  # before any of them is needed


def test_a_full_cache_passes_where_nothing_can_be_written_and_one_view_more_does_not(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    fill(cache, 0, ROWS)
    cache.flush()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    opened(tmp_path).check(1)
    with pytest.raises(PermissionError, match="lacks entries"):
        opened(tmp_path).check(2)


def test_what_the_disk_cannot_hold_is_refused_before_it_starts(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(
        ValueError, match=r"4 views of 300 samples need .* MiB more in .*, 9.54e-05 MiB are free"
    ) as refused:
        cache.check_space(cache.missing_bytes(4), 4)
    assert "--teacher.views" in str(refused.value)
    assert not list(tmp_path.glob("view*"))


def test_what_is_there_needs_no_space(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    for view in range(4):
        fill(cache, view, ROWS[:1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    cache.check_space(cache.missing_bytes(4), 4)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_made(tmp_path, monkeypatch):
    cache = opened(tmp_path)
    fill(cache, 0, ROWS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"the targets of one view need 0.00677 MiB, .* are free") as refused:
        fill(cache, 1, ROWS)
    assert refused.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == [HEADER, "view_00000.bin"]
    cache.flush()
    assert same(opened(tmp_path), 0, ROWS)
    monkeypatch.undo()
    fill(cache, 1, ROWS)
    cache.flush()
    assert same(opened(tmp_path), 1, ROWS)


def test_space_is_taken_without_fallocate(tmp_path, monkeypatch):
    """macOS has none."""
    monkeypatch.delattr(os, "posix_fallocate")
    cache = opened(tmp_path, np.arange(200_000))
    fill(cache, 0, np.array([199_999]))
    file = (tmp_path / "view_00000.bin").stat()
    assert file.st_size == cache.bytes_per_view
    assert file.st_blocks * 512 >= cache.bytes_per_view
    assert same(cache, 0, np.array([199_999]))


def test_a_faster_process_keeps_its_file(tmp_path, monkeypatch):
    """Both find no file; the slower one puts its entries into the faster one's."""
    slow, fast = opened(tmp_path), opened(tmp_path)
    original = cache_module._allocate

    def overtaken(handle: int, size: int) -> None:
        monkeypatch.setattr(cache_module, "_allocate", original)
        fill(fast, 0, ROWS[:100])
        fast.flush()
        original(handle, size)

    monkeypatch.setattr(cache_module, "_allocate", overtaken)
    fill(slow, 0, ROWS[100:])
    slow.flush()
    assert opened(tmp_path).have(0, ROWS).all()
    assert same(fast, 0, ROWS)
    assert not list(tmp_path.glob(".*"))


def test_of_two_different_runs_that_begin_at_once_one_is_refused(tmp_path, monkeypatch):
    original = cache_module._appear

    def overtaken(path: Path, write: object) -> None:
        monkeypatch.setattr(cache_module, "_appear", original)
        opened(tmp_path)
        original(path, write)

    monkeypatch.setattr(cache_module, "_appear", overtaken)
    with pytest.raises(ValueError, match="seed"):
        opened(tmp_path, key=replace(KEY, seed=1))
    opened(tmp_path)


FILL = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_cache import IDS, ROWS, fill, opened

cache = opened(Path(sys.argv[2]))
order = np.random.default_rng(int(sys.argv[3])).permutation(len(ROWS))
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(sys.argv[4])):
    for view in range(4):
        for part in np.array_split(order, 30):
            fill(cache, view, part)
            cache.flush()
            print(view, flush=True)
"""


def filler(tmp_path: Path, seed: int, turns: int) -> subprocess.Popen[bytes]:
    """A process that fills four views of `tmp_path`/cache as soon as it is told to."""
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    words = [script, Path(__file__).parent, tmp_path / "cache", seed, turns]
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_may_fill_at_once_and_be_killed(tmp_path):
    """Two fill the same folder, each in its own order; a third is killed on the way."""
    processes = [filler(tmp_path, seed, turns) for seed, turns in ((1, 1), (2, 1), (3, 1000))]
    try:
        assert [heard(process) for process in processes] == [b"ready"] * 3
        *both, killed = processes
        go(killed)
        for _ in range(40):
            assert heard(killed) in b"0123"
        killed.send_signal(signal.SIGKILL)
        killed.wait(30)
        cache = opened(tmp_path / "cache")
        there = [cache.have(view, ROWS) for view in range(4)]
        assert there[0].all()
        assert there[1].any()
        for view in range(4):
            assert same(cache, view, ROWS[there[view]])
        for process in both:
            go(process)
        assert [process.communicate(timeout=60) and process.returncode for process in both] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait(30)
            process.stdout.close()
            if not process.stdin.closed:
                process.stdin.close()
    cache = opened(tmp_path / "cache")
    for view in range(4):
        assert cache.have(view, ROWS).all()
        assert same(cache, view, ROWS)
    assert sorted(os.listdir(tmp_path / "cache")) == [HEADER, *(f"view_{view:05d}.bin" for view in range(4))]
