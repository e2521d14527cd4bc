"""Encoded images in the rows of a table: parquet files read by row group, or a memory-mapped Arrow table."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kdprune.data.sources.base import Stamp
from kdprune.outside import check_regular


class ParquetRows:
    """The image column of parquet files; each row group is read when first asked for, and kept.

    Meant for columns that fit in memory. Pickling leaves the read groups behind.
    """

    def __init__(self, files: list[Path], column: str) -> None:
        self.files = files
        self.column = column
        counts = [_group_counts(file) for file in files]
        self._groups = [(file, group) for file, of_file in enumerate(counts) for group in range(len(of_file))]
        self._ends = np.cumsum([count for of_file in counts for count in of_file])
        self._file_starts = np.cumsum([0] + [sum(of_file) for of_file in counts])
        self._start()

    def _start(self) -> None:
        self._read: dict[int, pa.Array] = {}
        self._lock = threading.Lock()

    def cell(self, row: int) -> Any:
        """The image of a row: {"bytes": …, "path": …}, bytes or a path, as the file has it."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        array = self._group(group)
        value = array[row - int(self._ends[group]) + len(array)]
        if isinstance(value, pa.StructScalar) and value.is_valid:
            return {name: value[name].as_py() for name in ("bytes", "path") if name in value}
        return value.as_py()

    def where(self, row: int) -> str:
        file = int(np.searchsorted(self._file_starts, row, side="right")) - 1
        return f"row {row - self._file_starts[file]} of {self.files[file]}"

    def stamp(self) -> Stamp:
        """Sizes and footers of the files, which hold the size of every column chunk and the extremes of its values."""
        contents = hashlib.sha256()
        for file in self.files:
            contents.update(b"%d\0" % os.stat(file).st_size)
            contents.update(_footer(file))
        return Stamp(contents.digest(), _modified(self.files))

    def _group(self, group: int) -> pa.Array:
        with self._lock:
            if group not in self._read:
                file, index = self._groups[group]
                table = pq.ParquetFile(self.files[file]).read_row_group(index, columns=[self.column])
                chunks = table.column(0).chunks
                self._read[group] = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
            return self._read[group]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_read", "_lock")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


class ArrowRows:
    """The image column of a Hugging Face `Dataset`, which keeps its tables memory-mapped on disk."""

    def __init__(self, dataset: Any, column: str, name: str, origin: ParquetRows | None = None) -> None:
        import datasets

        if isinstance(dataset.features[column], datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
        self._dataset = dataset.with_format(None).select_columns([column])
        self._column = column
        self._name = name
        self._origin = origin  # the files that the table was copied from: messages speak of their rows

    def cell(self, row: int) -> Any:
        return self._dataset[row][self._column]

    def stamp(self) -> Stamp:
        """That of the parquet files where they are known, else the length of every encoded image."""
        if self._origin is not None:
            return self._origin.stamp()
        lengths = _encoded_lengths(self._dataset.data.table.column(self._column))
        if self._dataset._indices is not None:  # rows that were selected or shuffled
            lengths = lengths[self._dataset._indices.column(0).to_numpy()]
        files = [Path(file["filename"]) for file in self._dataset.cache_files]
        return Stamp(hashlib.sha256(lengths.tobytes()).digest(), _modified(files))

    def where(self, row: int) -> str:
        return f"row {row} of {self._name}" if self._origin is None else self._origin.where(row)


def read_metadata(file: Path) -> pq.FileMetaData:
    """The footer of a parquet file; a damaged file is named in the error."""
    about = os.stat(file)
    check_regular(file, about)
    try:
        metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a readable parquet file: {error}") from None
    if metadata.num_rows > about.st_size:  # of which each has an image: memory is not taken for what cannot be there
        raise ValueError(f"{file} is damaged: {metadata.num_rows:,} rows in {about.st_size:,} bytes")
    return metadata


def read_schema(file: Path) -> pa.Schema:
    """The columns of a parquet file, with its metadata; a damaged file is named in the error."""
    return read_metadata(file).schema.to_arrow_schema()


def _group_counts(file: Path) -> list[int]:
    metadata = read_metadata(file)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _footer(file: Path) -> bytes:
    """The metadata at the end of a parquet file, whose length stands in 4 of its last 8 bytes."""
    with open(file, "rb") as opened:
        opened.seek(-8, os.SEEK_END)
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - length, os.SEEK_END)
        return opened.read(length)


def _modified(files: list[Path]) -> bytes:
    times = b"".join(b"%d\0" % os.stat(file).st_mtime_ns for file in files)
    return hashlib.sha256(times).digest() if files else b""


def _encoded_lengths(column: pa.ChunkedArray) -> np.ndarray:
    """Bytes of each encoded image, little-endian int64 N, from the offsets alone; -1 where a row holds only a path."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, dtype="<i8")
    return pc.binary_length(column).fill_null(-1).to_numpy().astype("<i8")
