"""A teacher's logits on disk: one sparse file a view, found again whenever the same view of the same sample comes.

A view is a function of (seed, view, sample id), so what the teacher said of it can be kept: with as many views as
epochs a cached run equals an online one to rounding; with fewer, epoch e meets view e mod V again.

**A file** holds, for all N samples of the full data set, whatever the subset,

    N checksums, uint32, filled up to whole pages | N entries of W 16-bit words, by sample id.

Every entry has its own place, so runs with any subsets fill the same files, each what it lacks, and a view costs the
teacher one pass over the samples that were ever asked for. The file is sparse: its length is that of N entries, and
the disk holds the pages in which something was written.

**An entry counts if its checksum fits**; 0 means that there is none. The checksum is a function of the words, of the
sample id and of a seed made of key and view, so it tells a whole entry from everything else that the place may hold:

- nothing, or half an entry, when the writer was killed: words go before checksums, and both are in the page cache of
  the operating system, which outlives the process;
- a checksum without its entry, or the reverse, when the machine stopped: nothing needs to be flushed in any order;
- two entries mixed, when two processes computed the same one at once: they write identical bytes, or (in batches of
  other sizes, where a teacher may round differently) bytes of which one of the two checksums fits, or none;
- a flipped bit, an entry in another's place, a file of another teacher or view.

What does not fit is computed again. So there are no locks and no flags, and any number of processes may write.

**A full disk is an error and never a signal**: a store into a mapped hole of a full disk kills the process with SIGBUS,
so writes go through `pwrite`, whose ENOSPC is an exception. Reads go through a read-only map, which costs no call of
the operating system for each entry. On file systems in memory (/dev/shm) even reading a hole takes a page, so the space
of the checksums is reserved when a file is made, and an entry is read only if it has a checksum.

Shapes: N samples of a request, W 16-bit words of an entry.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdprune.artefact import Artefact, Key, key_hash
from kdprune.files import FULL, NoSpace, in_bytes
from kdprune.teachers.checksums import checksums, seed_of
from kdprune.teachers.entries import Entries

OPEN_VIEWS = 8  # mapped at once; each holds a file open, and a run may have hundreds
FORMAT = "checksums and entries by sample id, 1"
TARGETS = "cached targets"  # what the folder of a cache says that it holds
_PAGE = 4096
_BLOCK = 8192  # entries that are verified at once

log = logging.getLogger("kdprune")


class TargetCache:
    """Entries of any samples in any number of views, shared by any number of processes and runs.

    Args:
        folder: where; made if it is not there.
        key: what the entries depend on (see `targets_key`).
        total: samples of the full data set.
        entries: how logits become 16-bit words and back.

    Raises:
        ValueError: the folder holds targets of something else, and what differs.
    """

    def __init__(self, folder: Path, key: Key, total: int, entries: Entries) -> None:
        self.folder, self.total, self.entries = folder, total, entries
        self._artefact = Artefact(folder, TARGETS, key, "name another folder with --teacher.cache, or none")
        self._artefact.begin()
        self._key_hash = key_hash(self._artefact.key)
        self._column_bytes = whole_pages(4 * total)
        self._open: dict[int, _View] = {}
        self._warned = False

    @property
    def bytes_per_entry(self) -> int:
        return 2 * self.entries.words

    @property
    def bytes_per_view(self) -> int:
        """Length of a file; what the disk holds of it is less until all entries are there."""
        return self._column_bytes + self.total * self.bytes_per_entry

    def required_bytes(self, views: int, ids_N: np.ndarray) -> int:
        """Look at the files of the first `views` views, and say how much of the disk their missing entries will take.

        Args:
            ids_N: sample ids, ascending, that will be asked for in each view.

        Raises:
            ValueError: a file is truncated.
            PermissionError: entries are missing, and nothing may be written.
        """
        # The same for every view without a file, and a run may have hundreds of them.
        of_a_new_file = self._column_bytes + _PAGE * int(self._pages(ids_N).sum())
        needed = 0
        for view in range(views):
            opened = self._map(view)
            missing = ids_N if opened is None else ids_N[opened.checksums[ids_N] == 0]
            if len(missing):
                self._check_writable(view)
                needed += of_a_new_file if opened is None else self._added_bytes(opened, missing)
        return needed

    def have(self, view: int, ids_N: np.ndarray) -> np.ndarray:
        """Which entries are there, bool N. Reads no entries: whether each is whole shows when it is read."""
        opened = self._map(view)
        return np.zeros(len(ids_N), dtype=bool) if opened is None else opened.checksums[ids_N] != 0

    def read(self, view: int, ids_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entries, int16 N×W, and which of them count, bool N; the others are to be computed."""
        words_NW = np.zeros((len(ids_N), self.entries.words), dtype=np.int16)
        opened = self._map(view)
        if opened is None:
            return words_NW, np.zeros(len(ids_N), dtype=bool)
        stored_N = opened.checksums[ids_N]
        present = np.flatnonzero(stored_N)
        if len(present) == len(ids_N):
            words_NW = opened.words[ids_N]
        else:
            words_NW[present] = opened.words[ids_N[present]]
        fits = stored_N == checksums(words_NW, ids_N, self._seed(view))
        if damaged := len(present) - int(fits.sum()):
            self._warn(view, damaged)
        return words_NW, fits

    def damaged(self, view: int) -> np.ndarray:
        """Ids of all samples whose entry is there and does not fit its checksum; reads the whole view."""
        stored = np.flatnonzero(self.have(view, np.arange(self.total)))
        blocks = [stored[start : start + _BLOCK] for start in range(0, len(stored), _BLOCK)]
        return np.concatenate([stored[:0], *(block[~self.read(view, block)[1]] for block in blocks)])

    def write(self, view: int, ids_N: np.ndarray, words_NW: np.ndarray) -> None:
        """Put entries down; other processes see them at once.

        Raises:
            NoSpace: with what is needed and what is free; the entries before it are kept.
        """
        order = np.argsort(ids_N, kind="stable")  # neighbours are written in one call
        ids_N, words_NW = ids_N[order], np.ascontiguousarray(words_NW[order], dtype=np.int16)
        checksums_N = checksums(words_NW, ids_N, self._seed(view))
        runs = list(_runs(ids_N))
        try:
            file = self._open_to_write(view)
            try:
                for run in runs:
                    _write(file, words_NW[run], self._column_bytes + int(ids_N[run.start]) * self.bytes_per_entry)
                for run in runs:
                    _write(file, checksums_N[run], 4 * int(ids_N[run.start]))
            finally:
                os.close(file)  # where network file systems may say that the disk is full
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._no_space(error, len(ids_N), view) from None

    def _path(self, view: int) -> Path:
        return self.folder / f"view_{view:05d}.bin"

    def _seed(self, view: int) -> int:
        return seed_of(self._key_hash, view)

    def _added_bytes(self, opened: _View, missing_N: np.ndarray) -> int:
        """Space that entries take in a file, beside what others have taken: neighbours share pages."""
        taken = self._pages(np.flatnonzero(opened.checksums))
        return _PAGE * int((self._pages(missing_N) & ~taken).sum())

    def _pages(self, ids_N: np.ndarray) -> np.ndarray:
        """Which pages of the file hold a part of these samples' entries, bool."""
        first = (self._column_bytes + ids_N * self.bytes_per_entry) // _PAGE
        last = (self._column_bytes + (ids_N + 1) * self.bytes_per_entry - 1) // _PAGE
        count = self.bytes_per_view // _PAGE + 2
        begun, ended = np.bincount(first, minlength=count), np.bincount(last + 1, minlength=count)
        return np.cumsum(begun - ended) > 0

    def _map(self, view: int) -> _View | None:
        """A view's file, mapped for reading; None if it was not made yet."""
        if view not in self._open:
            path = self._path(view)
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return None
            if not self._is_made(path, size):
                return None
            if len(self._open) >= OPEN_VIEWS:
                del self._open[next(iter(self._open))]
            whole = np.asarray(np.memmap(path, np.uint8, "r"))  # a memmap's own indexing is slow
            words_NW = whole[self._column_bytes :].view(np.int16).reshape(self.total, self.entries.words)
            self._open[view] = _View(whole[: 4 * self.total].view(np.uint32), words_NW)
        return self._open[view]

    def _open_to_write(self, view: int) -> int:
        """A descriptor of a view's file; the file is made if it is not there."""
        path = self._path(view)
        if not path.exists():
            self._artefact.begin()  # a run with another key may have taken the folder as long as it was empty
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if not self._is_made(path, os.fstat(file).st_size):
                # Whoever else does it at once does the same; neither call touches what another has written meanwhile.
                # The checksums' space comes first, since they are read where there is nothing, too (see above).
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, 0, self._column_bytes)
                os.ftruncate(file, self.bytes_per_view)
        except BaseException:
            os.close(file)
            raise
        return file

    def _is_made(self, path: Path, size: int) -> bool:
        """Whether a file has its full length, which it gets last: up to there no entry is in it."""
        if size <= self._column_bytes:
            return False
        if size != self.bytes_per_view:
            raise ValueError(
                f"{path} is truncated: {size:,} bytes, {self.bytes_per_view:,} expected. Remove this file; its entries "
                "will be computed again"
            )
        return True

    def _check_writable(self, view: int) -> None:
        path = self._path(view)
        if not os.access(path if path.exists() else self.folder, os.W_OK):
            raise PermissionError(f"{path} lacks entries, and may not be written")

    def _no_space(self, error: OSError, count: int, view: int) -> OSError:
        needed, free = in_bytes(count * self.bytes_per_entry), in_bytes(shutil.disk_usage(self.folder).free)
        return NoSpace(
            error.errno,
            f"{count} targets of view {view} need {needed}, {free} are free ({error.strerror}): use a smaller "
            "--teacher.views, --teacher.top_k, or another disk with --teacher.cache",
            str(self.folder),
        )

    def _warn(self, view: int, count: int) -> None:
        """Once, since where one entry is damaged there may be thousands."""
        if not self._warned:
            log.warning(
                "%s: %d entries do not fit their checksums (damage, or another process that is writing them); they are "
                "computed again, like all others that are found from now on",
                self._path(view), count,
            )  # fmt: skip
        self._warned = True


@dataclass(frozen=True)
class _View:
    """A mapped file: its checksums uint32 of all samples, its entries int16 of all samples × W."""

    checksums: np.ndarray
    words: np.ndarray


def whole_pages(count: int) -> int:
    return -(-count // _PAGE) * _PAGE


def _runs(ids_N: np.ndarray) -> Iterator[slice]:
    """Slices of ascending ids in which each id is the one before plus 1."""
    borders = [0, *(np.flatnonzero(np.diff(ids_N) != 1) + 1).tolist(), len(ids_N)]
    return (slice(start, end) for start, end in itertools.pairwise(borders) if end > start)


def _write(file: int, values: np.ndarray, offset: int) -> None:
    """All of it: a call that meets the end of the disk writes a part, and only the next one fails."""
    left = values.data.cast("B")
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
