"""A teacher's logits on disk: one file a view, met again whenever the same view of the same sample comes.

A view is a function of (seed, view, sample id), so what the teacher said of it can be kept: with as many views as
epochs a cached run equals an online one to rounding; with fewer, epoch e meets view e mod V again.

Shapes: K kept samples, V views, C classes, W 16-bit words of an entry, N samples of a request.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.files import read_json
from kdprune.teachers.entries import Entries

HEADER = "header.json"
OPEN_VIEWS = 8  # mapped at once; each holds a file open, and a run may have hundreds
_PAGE = 4096


@dataclass(frozen=True)
class CacheKey:
    """All that an entry depends on. Two runs that agree in all of it share a cache.

    Attributes:
        teacher: SHA-256 of its weights.
        input: how it wants its images.
        data: fingerprint of the training set.
        subset: hash of the kept ids (mixing partners are drawn from them, and rows are counted in them).
        views: recipe, size and fill of the views, and how they are made, in words.
        seed: of the run, from which views are drawn.
        entries: how an entry is stored, in words.
        precision: in which the teacher answers.
    """

    teacher: str
    input: str
    data: str
    subset: str
    views: str
    seed: int
    entries: str
    precision: str

    def differs(self, other: dict[str, Any]) -> list[str]:
        """What differs, for a person."""
        return [
            f"{name} ({_short(other.get(name))} there, {_short(value)} here)"
            for name, value in asdict(self).items()
            if other.get(name) != value
        ]


class TargetCache:
    """Entries of K samples in any number of views, memory-mapped, shared by any number of processes and runs.

    A file holds K flags and K entries. It appears whole, with its space reserved, in one step; an entry counts from the
    moment that its flag is set, which is after the entry is on disk. Who writes an entry twice writes the same.

    Args:
        folder: where; made if it is not there.
        key: what the entries depend on.
        ids: kept sample ids, ascending, int64 K.
        entries: how logits become 16-bit words and back.

    Raises:
        ValueError: the folder holds a cache of something else (named), or a file of the wrong length.
    """

    def __init__(self, folder: Path, key: CacheKey, ids: np.ndarray, entries: Entries) -> None:
        self.folder, self.ids, self.entries = folder, ids, entries
        self._flag_bytes = math.ceil(len(ids) / _PAGE) * _PAGE
        self._open: dict[int, _View] = {}
        self._unflagged: list[tuple[int, np.ndarray]] = []
        header = folder / HEADER
        if not header.exists():
            if folder.exists() and any(folder.glob("view_*.bin")):
                raise ValueError(f"{folder} holds targets, but its {HEADER} is missing: remove the folder")
            folder.mkdir(parents=True, exist_ok=True)
            about = {"key": asdict(key), "kept": len(ids), "bytes_per_view": self.bytes_per_view}
            _appear(header, lambda handle: os.write(handle, json.dumps(about, indent=2).encode()))
        if different := key.differs(_key_in(header)):
            raise ValueError(
                f"{folder} holds targets of something else: {'; '.join(different)}. Name another folder with "
                "--teacher.cache, or leave it out"
            )

    @property
    def bytes_per_view(self) -> int:
        return self._flag_bytes + len(self.ids) * self.entries.words * 2

    def missing_bytes(self, views: int) -> int:
        """Disk space that the files of the first `views` views still need."""
        return sum(self.bytes_per_view for view in range(views) if not self._path(view).exists())

    def check_space(self, needed: int, views: int) -> None:
        """Refuse to begin what the disk cannot hold.

        Args:
            needed: bytes that this cache, and others on the same disk, still need.
            views: for the message.
        """
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"{views} views of {len(self.ids):,} samples need {in_bytes(needed)} more in {self.folder}, "
                f"{in_bytes(free)} are free: use a smaller --teacher.views, --teacher.top_k, or another disk "
                "with --teacher.cache"
            )

    def check(self, views: int) -> None:
        """Look at the files of the first `views` views before anything depends on them.

        Raises:
            ValueError: one is truncated.
            PermissionError: entries are lacking, and nothing may be written.
        """
        paths = [self._path(view) for view in range(views)]
        for path in paths:
            if path.exists():
                self._check_length(path)
        writable = os.access(self.folder, os.W_OK) and all(os.access(p, os.W_OK) for p in paths if p.exists())
        if not writable and not all(self.have(view, np.arange(len(self.ids))).all() for view in range(views)):
            raise PermissionError(f"{self.folder} lacks entries, and may not be written")

    def _check_length(self, path: Path) -> None:
        if path.stat().st_size != self.bytes_per_view:
            raise ValueError(
                f"{path} is truncated: {path.stat().st_size:,} bytes, {self.bytes_per_view:,} expected. "
                "Remove this file; its entries will be computed again"
            )

    def rows(self, ids_N: np.ndarray) -> np.ndarray:
        """Where the samples stand in a file, int64 N."""
        return np.searchsorted(self.ids, ids_N)

    def have(self, view: int, rows_N: np.ndarray) -> np.ndarray:
        """Which entries are there, bool N."""
        if view not in self._open and not self._path(view).exists():
            return np.zeros(len(rows_N), dtype=bool)
        return self._map(view).flags[rows_N] > 0

    def read(self, view: int, rows_N: np.ndarray) -> np.ndarray:
        """Entries, int16 N×W; only of rows that `have`."""
        return self._map(view).words[rows_N]

    def write(self, view: int, rows_N: np.ndarray, words_NW: np.ndarray) -> None:
        """Put entries down; they count after the next `flush`."""
        there = self._map(view).words
        if not there.flags.writeable:
            raise PermissionError(f"{self._path(view)} lacks entries, and may not be written")
        there[rows_N] = words_NW
        self._unflagged.append((view, rows_N))

    def flush(self) -> None:
        """Bring what was written to the disk, then let it count."""
        for view in {view for view, _ in self._unflagged}:
            self._open[view].map.flush()
        for view, rows_N in self._unflagged:
            self._open[view].flags[rows_N] = 1
        self._unflagged.clear()

    def _path(self, view: int) -> Path:
        return self.folder / f"view_{view:05d}.bin"

    def _map(self, view: int) -> _View:
        """A view's file, mapped; it is made if it is not there."""
        if view not in self._open:
            path = self._path(view)
            if not path.exists():
                _reserve(path, self.bytes_per_view)
            self._check_length(path)
            if len(self._open) >= OPEN_VIEWS:
                self.flush()
                del self._open[next(iter(self._open))]
            whole = np.memmap(path, np.uint8, "r+" if os.access(path, os.W_OK) else "r")
            plain = np.asarray(whole)  # a memmap's own indexing is slow
            words = plain[self._flag_bytes :].view(np.int16).reshape(len(self.ids), self.entries.words)
            self._open[view] = _View(whole, plain[: len(self.ids)], words)
        return self._open[view]


@dataclass(frozen=True)
class _View:
    """A mapped file: all of it, its flags uint8 K, its entries int16 K×W."""

    map: np.memmap
    flags: np.ndarray
    words: np.ndarray


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose space is taken on the disk: writing to a map of it cannot fail later."""

    def take(handle: int) -> None:
        try:
            _allocate(handle, size)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                error.errno,
                f"the targets of one view need {in_bytes(size)}, {in_bytes(free)} are free ({error.strerror})",
                str(path.parent),
            ) from None

    _appear(path, take)


def in_bytes(count: int) -> str:
    """Bytes, for a person."""
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def _allocate(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    with open(handle, "wb", closefd=False) as file:  # macOS
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))


def _appear(path: Path, write: Callable[[int], object]) -> None:
    """Make a file in one step: as a whole or not at all. If another process was faster, its file stays."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        try:
            os.fchmod(handle, 0o644)
            write(handle)
            os.fsync(handle)
        finally:
            os.close(handle)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def _key_in(header: Path) -> dict[str, Any]:
    content = read_json(header)
    if not isinstance(content, dict) or not isinstance(content.get("key"), dict):
        raise ValueError(f"{header} is not the header of cached targets")
    return content["key"]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
