"""Scores of samples as a file: how hard each one is, by which scorer, observed in what. One row a sample.

A parquet file with the columns `sample_id` (int64), `label` (int32, -1 where there is none) and `score` (float32), in
the order of the ids; a scorer may add columns of its own, float32. Its metadata (key `kdprune`) say what the scores
belong to and which way is hard. A sample that was not observed, such as an unreadable image, has no row. Every page has
a checksum, scores, labels and further columns have a hash and so have the metadata, so that a change of any byte that
matters is found.

Shapes: N samples of the unpruned training set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdprune.files import write_whole
from kdprune.messages import counted, listed, shown
from kdprune.outside import parse_json

FORMAT = "kdprune scores 2"
ROWS = 2**20  # of a row group: what is in memory at once beside the arrays
SPARSE, SMALL = 2**10, 2**27  # beyond SMALL samples there is a row for at least one in SPARSE
_COLUMNS = {"sample_id": pa.int64(), "label": pa.int32(), "score": pa.float32()}

Hard = Literal["high", "low"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the samples of a data set.

    Attributes:
        values: by sample id, float32 N; NaN where a sample was not observed. ±inf is allowed and sorts as such.
        labels: int64 N, -1 where there is none; a file keeps those of observed samples.
        fingerprint: of the data set.
        scorer: as it was written, such as `el2n(epoch=10)`.
        hard: whether a high or a low score means a hard sample.
        classes: names, in label order.
        origin: what was observed, JSON values: the kind of record and the hashes of what it is made of.
        extra: further columns of the scorer, float32 N each.

    Example:
        >>> import kdprune, numpy as np
        >>> labels = np.array([0, 1, 0, 1])
        >>> scores = kdprune.Scores(np.array([0.1, 0.4, 0.2, 0.3]), labels, "labels only", "mine", "high")
        >>> scores.save("scores.parquet")
        >>> kdprune.Scores.load("scores.parquet").hash == scores.hash
        True
    """

    values: np.ndarray
    labels: np.ndarray
    fingerprint: str
    scorer: str
    hard: Hard
    classes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values, labels = np.asarray(self.values), np.asarray(self.labels)
        if self.hard not in get_args(Hard):
            raise ValueError(f"hard: {shown(self.hard)} given, allowed are {listed(get_args(Hard))}")
        if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiu":
            raise ValueError(f"values: {values.dtype} of shape {values.shape} given, allowed are numbers, N ≥ 1")
        if labels.shape != values.shape or labels.dtype.kind not in "iu":
            raise ValueError(f"labels: {labels.dtype} of shape {labels.shape} given for {len(values)} scores")
        for name, column in self.extra.items():
            if name in _COLUMNS or np.shape(column) != values.shape:
                raise ValueError(f"extra: {shown(name)} of shape {np.shape(column)} given for {len(values)} scores")
        object.__setattr__(self, "values", _float32(values))
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        object.__setattr__(self, "extra", {name: _float32(np.asarray(c)) for name, c in self.extra.items()})

    @property
    def total(self) -> int:
        return len(self.values)

    @property
    def hash(self) -> str:
        """SHA-256 over the scores, the labels and the further columns, hex."""
        return contents_hash(self.values, self.labels, self.extra)

    @property
    def difficulty(self) -> np.ndarray:
        """The scores, turned so that higher is harder: float32 N."""
        return self.values if self.hard == "high" else -self.values

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read a file that `save` wrote (see `load_scores`)."""
        return load_scores(path)

    def save(self, path: str | Path) -> None:
        """Write a parquet file, whole or not at all."""
        observed = np.flatnonzero(~np.isnan(self.values))
        about = {
            "format": FORMAT,
            "total": self.total,
            "scored": len(observed),
            "dataset_fingerprint": self.fingerprint,
            "scorer": self.scorer,
            "hard": self.hard,
            "classes": list(self.classes),
            "origin": dict(self.origin),
            "extra": list(self.extra),
            "hash": self.hash,
        }
        about["metadata_hash"] = _hash_of(about)
        columns = _COLUMNS | {name: pa.float32() for name in self.extra}
        schema = pa.schema(columns.items(), metadata={"kdprune": json.dumps(about, ensure_ascii=False)})
        # Ascending ids take next to no space as differences, and scores have nothing that a dictionary could share.
        encodings = {name: "DELTA_BINARY_PACKED" if name == "sample_id" else "PLAIN" for name in columns}

        def write(file: Any) -> None:
            with pq.ParquetWriter(
                file, schema, use_dictionary=False, column_encoding=encodings, write_page_checksum=True
            ) as writer:
                for start in range(0, max(1, len(observed)), ROWS):
                    ids = observed[start : start + ROWS]
                    by_id = [self.labels.astype(np.int32), self.values, *self.extra.values()]
                    writer.write_table(pa.table([ids, *(column[ids] for column in by_id)], schema=schema))

        write_whole(path, write)


def contents_hash(values_N: np.ndarray, labels_N: np.ndarray, extra: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over all that a score file holds of its samples, hex; what it leaves out does not matter.

    Args:
        values_N: scores, float32; NaN where a sample was not observed.
        labels_N: of observed samples.
        extra: further columns, float32.
    """
    digest = hashlib.sha256(values_N.astype("<f4", copy=False).data)
    columns = {"label": labels_N, **{name: extra[name] for name in sorted(extra)}}
    for name, column in columns.items():
        kind, nothing = ("<i4", -1) if name == "label" else ("<f4", np.nan)
        digest.update(f"\0{name}\0".encode())
        for start in range(0, len(values_N), ROWS):
            block = slice(start, start + ROWS)
            digest.update(np.where(np.isnan(values_N[block]), nothing, column[block]).astype(kind).data)
    return digest.hexdigest()


def _float32(values_N: np.ndarray) -> np.ndarray:
    """As float32, with one NaN only: others have other bits, and so another hash."""
    values_N = values_N.astype(np.float32, copy=False)
    missing_N = np.isnan(values_N)
    return np.where(missing_N, np.float32(np.nan), values_N) if missing_N.any() else values_N


def _hash_of(about: Mapping[str, Any]) -> str:
    text = json.dumps({name: about[name] for name in sorted(about) if name != "metadata_hash"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_scores(path: str | Path, fingerprint: str | None = None, total: int | None = None) -> Scores:
    """Read a score file and check it against the data set that it is about to be used with.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no score file, or one that was cut short or changed; another data set or another length; ids that
            are repeated, missing or outside the data set. Each says what was found and expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such score file")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = _about(path, file)
            if fingerprint is not None and about["dataset_fingerprint"] != fingerprint:
                raise ValueError(
                    f"{path}: the scores are of another data set (its fingerprint is "
                    f"{about['dataset_fingerprint'][:12]}…, this data set's is {fingerprint[:12]}…)"
                )
            if total is not None and about["total"] != total:
                raise ValueError(f"{path}: scores of {counted(about['total'], 'sample')}, the data set has {total:,}")
            columns = _read(path, file, about)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as parquet, it was cut short or changed: {error}") from None
    scores = Scores(
        columns.pop("score"), columns.pop("label"), about["dataset_fingerprint"], about["scorer"], about["hard"],
        tuple(about["classes"]), about["origin"], columns,
    )  # fmt: skip
    if scores.hash != about["hash"]:
        raise ValueError(f"{path}: scores or labels do not match the hash in the file, so one of them was changed")
    return scores


_FIELDS: dict[str, type] = {
    "total": int, "scored": int, "dataset_fingerprint": str, "scorer": str, "hard": str, "classes": list,
    "extra": list, "origin": dict, "hash": str, "metadata_hash": str,
}  # fmt: skip


def _about(path: Path, file: pq.ParquetFile) -> dict[str, Any]:
    """What the metadata say, every field of its type, and consistent with the columns and rows there are."""
    schema = file.schema_arrow
    try:
        about = parse_json((schema.metadata or {}).get(b"kdprune", b"null"), str(path))
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a score file: its metadata should have a key 'kdprune' with format {FORMAT!r}; "
            "kdprune.Scores(…).save(path) writes scores of your own"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(about.get(name), kind) or isinstance(about[name], bool):
            raise ValueError(f"{path} is damaged: {name!r} is {shown(about.get(name))}, and should be {kind.__name__}")
    if about["metadata_hash"] != _hash_of(about):
        raise ValueError(f"{path} is damaged: its metadata do not match their hash, so one of them was changed")
    if about["hard"] not in get_args(Hard) or not all(isinstance(name, str) for name in about["classes"]):
        raise ValueError(
            f"{path} is damaged: 'hard' is {shown(about['hard'])}, 'classes' are {shown(about['classes'])}"
        )
    expected = [*_COLUMNS.items(), *((name, pa.float32()) for name in about["extra"])]
    if [(f.name, f.type) for f in schema] != expected:
        raise ValueError(
            f"{path} is damaged: its columns are {listed([f'{f.name} ({f.type})' for f in schema])}, and should be "
            f"{listed([f'{name} ({kind})' for name, kind in expected])}"
        )
    rows, total = file.metadata.num_rows, about["total"]
    if rows != about["scored"] or not 0 <= rows <= total or total < 1:
        raise ValueError(f"{path} is damaged: {rows:,} rows, and it says {about['scored']:,} of {total:,} samples")
    if total > max(SMALL, SPARSE * rows):  # arrays of this length are about to be made
        raise ValueError(f"{path} is damaged: 'total' is {total:,}, with only {rows:,} rows")
    return about


def _read(path: Path, file: pq.ParquetFile, about: dict[str, Any]) -> dict[str, np.ndarray]:
    """All columns but the ids, by sample id."""
    total = about["total"]
    names = [name for name in file.schema_arrow.names if name != "sample_id"]
    columns = {name: np.full(total, np.nan, dtype=np.float32) for name in names if name != "label"}
    columns["label"] = np.full(total, -1, dtype=np.int64)
    last = -1
    # Row group by row group: `iter_batches` reads ahead without bounds, and holds all of a large file in the end.
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        if any(column.null_count for column in table.columns):
            raise ValueError(f"{path} is damaged: it has rows without a value")
        arrays = {name: table[name].to_numpy() for name in table.column_names}
        ids = arrays["sample_id"]
        # Differences are of ids in range only: those of others may overflow.
        wrong_M = (ids < 0) | (ids >= total)
        if not wrong_M.any():
            wrong_M = np.diff(ids, prepend=last) <= 0
        if wrong_M.any():
            raise ValueError(
                f"{path}: sample ids must ascend without repetition from 0 to {total - 1}; "
                f"wrong are {listed(ids[wrong_M].tolist(), 5)}"
            )
        if len(ids):
            last = int(ids[-1])
            where = slice(int(ids[0]), last + 1) if last - ids[0] + 1 == len(ids) else ids
            for name in names:
                columns[name][where] = arrays[name]
    return columns
