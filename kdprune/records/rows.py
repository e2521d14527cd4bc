"""Rows of a pass over data (embeddings, gradient norms, a teacher's statistics), in shards of consecutive sample ids.

    FOLDER/artefact.json, rows.json     what they belong to
    FOLDER/labels.npy                   int32 N
    FOLDER/features_00000.npy …         the rows of a column for the samples [s·S, (s+1)·S) of shard s

A shard is whole or not there, so a pass that was killed goes on with the first missing one. A sample that was not
observed, such as an unreadable image, has NaN.

Shapes: N samples of the unpruned training set, S samples of a shard, W values of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.artefact import key_hash, read_record
from kdprune.files import check_space, load_array, write_json, write_whole
from kdprune.messages import unknown
from kdprune.outside import (
    MAPPING,
    TEXT,
    Kind,
    check_fields,
    check_format,
    having,
    list_of,
    mapping_of,
    read_json,
    whole,
)

HEADER, LABELS = "rows.json", "labels.npy"
FORMAT = "kdprune rows 1"


@dataclass(frozen=True)
class Column:
    """Values of each sample: W numbers, or one where W is 0."""

    width: int
    dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.width,) if self.width else ()

    @property
    def bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * max(1, self.width)


@dataclass(frozen=True)
class About:
    """What the rows belong to.

    Attributes:
        kind: embeddings, gradients, teacher or memorization.
        total: N.
        columns: by name.
        fingerprint: of the data set.
        classes: their names.
        origin: what they were made with, JSON values.
    """

    kind: str
    total: int
    columns: Mapping[str, Column]
    fingerprint: str
    classes: tuple[str, ...]
    origin: Mapping[str, Any]
    format: str = field(default=FORMAT)

    @property
    def shard(self) -> int:
        """Samples of a shard: a power of two, 8,192 at least, so that there are about a thousand at most."""
        return max(2**13, 2 ** (max(1, -(-self.total // 1024)) - 1).bit_length())

    @property
    def shards(self) -> int:
        return -(-self.total // self.shard)

    @property
    def bytes(self) -> int:
        return self.total * sum(column.bytes for column in self.columns.values())

    def ids(self, shard: int) -> np.ndarray:
        """The sample ids of a shard, int64, ascending."""
        return np.arange(shard * self.shard, min(self.total, (shard + 1) * self.shard))


class RowFiles:
    """Rows that are being written."""

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self.about = folder, about

    def create(self, labels_N: np.ndarray) -> None:
        """Write the header, on one process.

        Raises:
            OSError: no space for the rows.
        """
        missing = sum(not self.has(shard) for shard in range(self.about.shards))
        needed = missing * self.about.bytes // self.about.shards
        check_space(self.folder, needed, f"the recorded {self.about.kind}", "choose another --output")
        write_json(self.folder / HEADER, asdict(self.about))
        write_whole(self.folder / LABELS, lambda file: np.save(file, labels_N.astype(np.int32), allow_pickle=False))

    def has(self, shard: int) -> bool:
        return all(self._path(name, shard).exists() for name in self.about.columns)

    def write(self, shard: int, rows: Mapping[str, np.ndarray]) -> None:
        """Put down the rows of all samples of a shard, a column each."""
        for name, column in self.about.columns.items():
            expected = (len(self.about.ids(shard)), *column.shape)
            assert rows[name].shape == expected, f"{name}: {rows[name].shape} is not {expected}"
            save = partial(np.save, arr=rows[name].astype(column.dtype), allow_pickle=False)
            write_whole(self._path(name, shard), save)

    def names(self) -> list[str]:
        """Its files, for the digests of an artefact."""
        shards = range(self.about.shards)
        return [HEADER, LABELS, *(self._path(name, s).name for name in self.about.columns for s in shards)]

    def _path(self, name: str, shard: int) -> Path:
        return self.folder / f"{name}_{shard:05d}.npy"


class Rows:
    """A column of a record: `len()` and slices `rows[a:b]`, as arrays float32, read from the shards.

    It holds none of them, so what is sent to another process is where they are.
    """

    def __init__(self, folder: Path, about: About, name: str) -> None:
        if name not in about.columns:
            raise ValueError(unknown(f"column of the {about.kind} in {folder}", name, about.columns))
        self.folder, self.about, self.name, self.column = folder, about, name, about.columns[name]

    def __len__(self) -> int:
        return self.about.total

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.about.total, *self.column.shape)

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, step = where.indices(len(self))
        assert step == 1
        size = self.about.shard
        parts = [
            self._shard(shard)[max(0, start - shard * size) : stop - shard * size]
            for shard in range(start // size, -(-stop // size))
        ]
        return np.concatenate(parts).astype(np.float32) if parts else np.empty((0, *self.column.shape), np.float32)

    def at(self, index_M: np.ndarray) -> np.ndarray:
        """Rows by position, in any order, as an array float32; of the shards only what they lie in is read."""
        found = np.empty((len(index_M), *self.column.shape), np.float32)
        order = np.argsort(index_M, kind="stable")
        shard_M = index_M[order] // self.about.shard
        firsts, lasts = (np.flatnonzero(np.diff(shard_M, **end)) for end in ({"prepend": -1}, {"append": -1}))
        for first, last in zip(firsts, lasts, strict=True):
            shard, places = int(shard_M[first]), order[first : last + 1]
            found[places] = self._shard(shard)[index_M[places] - shard * self.about.shard]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def _shard(self, shard: int) -> np.ndarray:
        path = self.folder / f"{self.name}_{shard:05d}.npy"
        try:
            array = load_array(path)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the command that records goes on with what is missing") from None
        expected = (len(self.about.ids(shard)), *self.column.shape)
        if array.shape != expected or array.dtype != self.column.dtype:
            raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}, and {expected} is expected")
        return array


class RowRecord:
    """A record of rows, to be read.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / HEADER).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {HEADER}: it is no record of embeddings, gradients or a teacher"
            )
        self.about = _read_header(folder / HEADER)
        labels = load_array(folder / LABELS)
        if labels.shape != (self.about.total,) or labels.dtype.kind not in "iu":
            raise ValueError(f"{folder / LABELS} is damaged: {labels.dtype} of shape {labels.shape}")
        self.labels = labels.astype(np.int64)

    @property
    def key_hash(self) -> str:
        """Of the artefact that it is: what it was made of."""
        record = read_record(self.folder)
        return "unknown" if record is None else key_hash(record["key"])

    def rows(self, name: str) -> Rows:
        """A column."""
        return Rows(self.folder, self.about, name)


_NUMBERS = ("float16", "float32", "float64", "int16", "int32", "int64")
_COLUMN = {"width": whole(0, 2**24), "dtype": Kind(" or ".join(_NUMBERS), lambda value: value in _NUMBERS)}
_FIELDS = {
    "kind": TEXT, "total": whole(1, 2**48), "columns": mapping_of(having(_COLUMN)), "fingerprint": TEXT,
    "classes": list_of(TEXT), "origin": MAPPING,
}  # fmt: skip


def _read_header(path: Path) -> About:
    content = read_json(path)
    check_format(content, FORMAT, str(path), "a record of rows")
    check_fields(content, _FIELDS, str(path))
    columns = {name: Column(column["width"], column["dtype"]) for name, column in content["columns"].items()}
    known = {name: content[name] for name in _FIELDS}
    return About(**{**known, "classes": tuple(content["classes"]), "columns": columns})
