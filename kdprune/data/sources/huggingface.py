"""`hfds/…`: a folder of parquet files, a data set of the Hugging Face hub, or a `datasets.Dataset` at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from kdprune.data.images import ImageError, decode
from kdprune.data.sources.base import (
    HELD_OUT,
    MOST_CLASSES,
    NoHeldOut,
    Source,
    Stamp,
    check_same_classes,
    count_classes,
)
from kdprune.data.sources.columns import Columns, find_columns
from kdprune.data.sources.parquet_splits import LAYOUT, find_splits
from kdprune.data.sources.paths import existing_folder, looks_like_path, nearest_sibling
from kdprune.data.sources.rows import ArrowRows, ParquetRows, read_metadata, read_schema
from kdprune.outside import below, read_bytes

log = logging.getLogger("kdprune")

LARGEST_IMAGE = 2**30  # bytes of a file
IN_MEMORY_BYTES = 256 * 2**20  # a larger split is memory-mapped, from an Arrow copy in the cache of `datasets`


class Rows(Source):
    """Encoded images in the rows of a table, `rows` (ParquetRows or ArrowRows)."""

    kind = "hfds"

    def __init__(
        self, name: str, split: str, rows: Any, labels: np.ndarray, classes: Sequence[str], folder: Path | None = None
    ) -> None:
        self._rows = rows
        self._folder = folder  # where images lie that the table only points to; None: wherever it says
        super().__init__(name, split, labels, classes)

    def _open(self, sample_id: int) -> Image.Image:
        cell = self._rows.cell(sample_id)
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if isinstance(data, str):
            data, path = None, data
        if data is None:
            if path is None:
                raise ImageError(f"{self.describe(sample_id)} holds no image")
            data = self._read(path)
        return decode(data)

    def _read(self, path: str) -> bytes:
        """The file that a cell points to, which lies beside the table where that is in a folder.

        Raises:
            ImageError: it lies elsewhere, or is no file of a size that an image has.
            FileNotFoundError: it is not there.
        """
        try:
            return read_bytes(Path(path) if self._folder is None else below(self._folder, path), LARGEST_IMAGE)
        except ValueError as error:
            raise ImageError(f"it is read from a file: {error}") from None

    def describe(self, sample_id: int) -> str:
        return self._rows.where(sample_id)

    def stamp(self) -> Stamp:
        """That of the table's files; images that the table only points to are not looked at."""
        return self._rows.stamp()


@dataclass
class Labels:
    """Labels of a table, and the class names where the table gives them."""

    values: np.ndarray
    names: list[str] | None

    @property
    def any(self) -> bool:
        return bool((self.values >= 0).any())


def open_huggingface(name: str, split: str, root: str | Path | None) -> Source:
    """Open `hfds/name`: a folder of parquet files if there is one of that name (also below `root`), else the hub's.

    Raises:
        ValueError: no such folder or data set, no such split, no image column, labels out of range.
    """
    folder = existing_folder(name, root)
    if folder is not None:
        return _open_parquet(folder, f"hfds/{name}", split, root)
    if looks_like_path(name):
        raise ValueError(f"hfds/{name}: no such folder{nearest_sibling(name)}")
    return _open_hub(name, split, root)


def from_dataset(dataset: Any, name: str, split: str, classes: Sequence[str] | None = None) -> Source:
    """A source from a `datasets.Dataset`; its images stay memory-mapped."""
    columns = find_columns(dataset.features.arrow_schema, name)
    labels = _dataset_labels(dataset, columns, name)
    rows = ArrowRows(dataset, columns.image, name)
    return Rows(name, split, rows, labels.values, classes or labels.names or count_classes(labels.values))


def _open_parquet(folder: Path, name: str, split: str, root: str | Path | None) -> Source:
    train, held_out = find_splits(folder, name)
    files, labels, classes = _choose(
        name, split, train or None, held_out, lambda files: _parquet_labels(files, name), f"{folder}: expected {LAYOUT}"
    )
    column = find_columns(read_schema(files[0]), name).image
    return Rows(name, split, _parquet_rows(files, column, root), labels, classes, files[0].parent)


def _open_hub(name: str, split: str, root: str | Path | None) -> Source:
    import datasets

    try:
        splits = datasets.load_dataset(name, cache_dir=None if root is None else str(root))
    except Exception as error:  # the hub's and the network's many ways to fail
        raise ValueError(
            f"hfds/{name}: neither a folder{nearest_sibling(name)} nor a data set that the hub gives: {error}"
        ) from error
    held_out = {word: splits[word] for word in HELD_OUT if word in splits}
    dataset, labels, classes = _choose(
        f"hfds/{name}",
        split,
        splits.get("train"),
        held_out,
        lambda dataset: _dataset_labels(dataset, find_columns(dataset.features.arrow_schema, f"hfds/{name}"), name),
        f"the hub's splits are {', '.join(splits)}",
    )
    column = find_columns(dataset.features.arrow_schema, f"hfds/{name}").image
    return Rows(f"hfds/{name}", split, ArrowRows(dataset, column, f"hfds/{name}"), labels, classes)


def _choose(
    name: str, split: str, train: Any, held_out: Mapping[str, Any], read_labels: Any, there: str
) -> tuple[Any, np.ndarray, list[str]]:
    """The table of a split, its labels and class names: those of the training split, which the held-out one must share.

    Of several held-out tables the first with labels is taken: benchmarks publish their test split without.
    """
    if split == "train" and train is None:
        raise ValueError(f"{name}: no train split; {there}")
    if split == "test" and not held_out:
        raise NoHeldOut(f"{name}: no held-out split for 'test' ({', '.join(HELD_OUT)}); {there}")
    reference: Labels | None = None if train is None else read_labels(train)
    if split == "train":
        assert reference is not None
        return train, reference.values, reference.names or count_classes(reference.values)
    read = {word: read_labels(table) for word, table in held_out.items()}
    word = next((word for word, labels in read.items() if labels.any), next(iter(read)))
    if len(read) > 1:
        log.info("%s: held out is the split %s, of %s", name, word, ", ".join(read))
    labels = read[word]
    if reference is None or not reference.any:  # an unlabelled train split fits any held-out one
        reference = labels
    elif not labels.any:
        raise ValueError(f"{name}: the held-out split ({', '.join(read)}) has no labels, the train split has")
    if reference.names and labels.names:
        check_same_classes(name, reference.names, labels.names)
    return held_out[word], labels.values, reference.names or labels.names or count_classes(reference.values)


def _parquet_labels(files: list[Path], name: str) -> Labels:
    columns = find_columns(read_schema(files[0]), name)
    if columns.label is None:
        return Labels(np.full(sum(read_metadata(file).num_rows for file in files), -1), None)
    tables = []
    for file in files:
        missing = {columns.image, columns.label} - set(read_schema(file).names)
        if missing:
            raise ValueError(f"{name}: {file} has no column {', '.join(sorted(missing))}, which {files[0].name} has")
        try:
            tables.append(pq.read_table(file, columns=[columns.label], partitioning=None).column(0))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged: {error}") from None
    return _decode_labels(pa.chunked_array([chunk for table in tables for chunk in table.chunks]), columns, name)


def _dataset_labels(dataset: Any, columns: Columns, name: str) -> Labels:
    if columns.label is None:
        return Labels(np.full(len(dataset), -1), None)
    table = dataset.select_columns([columns.label]).with_format("arrow")[:]
    return _decode_labels(table.column(0), columns, name)


def _decode_labels(column: pa.ChunkedArray, columns: Columns, name: str) -> Labels:
    """Whole numbers as they are, words by their place in the sorted list of words, nothing as −1."""
    if pa.types.is_integer(column.type):
        largest = pc.max(column).as_py()  # before unsigned ones become negative
        if largest is not None and largest >= MOST_CLASSES:
            raise ValueError(
                f"{name}: label {largest} in column {columns.label!r}, allowed are classes from 0 to "
                f"{MOST_CLASSES - 1:,}; number the classes from 0"
            )
        return Labels(column.fill_null(-1).to_numpy().astype(np.int64), columns.classes)
    words = sorted({word for word in column.unique().to_pylist() if word is not None})
    places = {word: place for place, word in enumerate(words)}
    return Labels(np.array([places.get(word, -1) for word in column.to_pylist()], dtype=np.int64), words)


def _parquet_rows(files: list[Path], column: str, root: str | Path | None) -> ParquetRows | ArrowRows:
    rows = ParquetRows(files, column)
    if sum(_unpacked_bytes(file) for file in files) <= IN_MEMORY_BYTES:
        return rows
    import datasets

    paths = [str(file) for file in files]
    cache = None if root is None else str(root)
    try:
        dataset = datasets.Dataset.from_parquet(paths, columns=[column], cache_dir=cache)
    except (pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{paths[0]} or a file beside it is damaged: {error.__cause__ or error}") from error
    return ArrowRows(dataset, column, str(files[0].parent), rows)


def _unpacked_bytes(file: Path) -> int:
    metadata = read_metadata(file)
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
