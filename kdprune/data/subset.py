"""The kept part of a training set, as a file: which sample ids, how they were chosen, from which data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.files import load_array, write_json, write_whole
from kdprune.messages import counted, did_you_mean, listed, shown
from kdprune.outside import (
    MAPPING,
    SAMPLE_ID,
    TEXT,
    below,
    check_fields,
    check_format,
    list_of,
    read_json,
    whole,
)

FORMAT = "kdprune subset 1"
INLINE = 100_000  # more kept ids than this stand in a binary file beside the JSON


@dataclass(frozen=True)
class Subset:
    """Kept sample ids.

    Attributes:
        ids: ascending, int64 K, positions in the unpruned training set.
        total: samples of the unpruned training set.
        fingerprint: of the data set that the ids belong to.
        chosen: how: selector, keep_fraction, balanced, seed; class_floor and without_classes where they were given.
        dropped: sample ids of unreadable images, which nothing was allowed to choose.

    Example:
        >>> import kdprune
        >>> subset = kdprune.select("digits", 0.1)
        >>> subset.save("subset.json")
        >>> len(subset.ids), kdprune.Subset.load("subset.json").hash == subset.hash
        (135, True)
    """

    ids: np.ndarray
    total: int
    fingerprint: str
    chosen: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()

    @property
    def keep_fraction(self) -> float:
        return len(self.ids) / self.total

    @property
    def hash(self) -> str:
        """SHA-256 over the ids, hex: two subsets with the same hash keep the same samples."""
        return hashlib.sha256(np.ascontiguousarray(self.ids, dtype="<i8").data).hexdigest()

    @classmethod
    def load(cls, path: str | Path) -> Subset:
        """Read `subset.json`, as `save` wrote it or a run has it (see `load_subset`)."""
        return load_subset(path)

    def save(self, path: str | Path) -> None:
        """Write `subset.json`, and the ids beside it as `subset.ids.npy` when there are many."""
        path = Path(path)
        content = {
            "format": FORMAT,
            "dataset_fingerprint": self.fingerprint,
            "total": self.total,
            "kept": len(self.ids),
            "keep_fraction": self.keep_fraction,
            "chosen": self.chosen,
            "dropped": list(self.dropped),
            "hash": self.hash,
        }
        if len(self.ids) > INLINE:
            beside = path.with_suffix(".ids.npy")
            write_whole(beside, lambda file: np.save(file, self.ids, allow_pickle=False))
            content["ids_file"] = beside.name
        else:
            content["ids"] = self.ids.tolist()
        write_json(path, content)


def load_subset(path: str | Path, fingerprint: str | None = None, total: int | None = None) -> Subset:
    """Read a subset file and check it against the data set that it is about to be used with.

    Args:
        path: the file, or a run directory, whose `subset.json` is taken.
        fingerprint, total: of the data set.

    Raises:
        ValueError: another data set, damaged ids, ids outside the data set: each says what was found and expected.
        FileNotFoundError: no such file.
    """
    path = _file(Path(path))
    content = _read(path)
    subset = Subset(
        _read_ids(path, content), content["total"], content["dataset_fingerprint"], content["chosen"],
        tuple(content["dropped"]),
    )  # fmt: skip
    ids = subset.ids
    if subset.hash != content["hash"]:
        raise ValueError(f"{path}: the ids do not match the hash in the file, so one of them was changed")
    if fingerprint is not None and subset.fingerprint != fingerprint:
        raise ValueError(
            f"{path} was made from another data set (its fingerprint is {subset.fingerprint[:12]}…, "
            f"this data set's is {fingerprint[:12]}…)"
        )
    if total is not None and subset.total != total:
        raise ValueError(f"{path} speaks of {counted(subset.total, 'sample')}, the data set has {total}")
    if not len(ids) or np.any(np.diff(ids) <= 0) or ids[0] < 0 or ids[-1] >= subset.total:
        raise ValueError(f"{path}: ids must be ascending, without repetition, between 0 and {subset.total - 1}")
    return subset


def _file(path: Path) -> Path:
    """The subset file that a path means."""
    found = path / "subset.json" if path.is_dir() else path
    if not found.exists():
        raise FileNotFoundError(
            f"{path} is a folder without a subset.json" if path.is_dir() else f"{path}: no such subset file"
        )
    return found


_FIELDS = {
    "dataset_fingerprint": TEXT, "total": whole(1), "chosen": MAPPING, "dropped": list_of(SAMPLE_ID), "hash": TEXT,
}  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    """The content of a subset file, with every field of its type."""
    content = read_json(path)
    check_format(content, FORMAT, str(path), "a subset file")
    return check_fields(content, _FIELDS, str(path))


def _read_ids(path: Path, content: dict[str, Any]) -> np.ndarray:
    if "ids_file" not in content and "ids" not in content:
        raise ValueError(f"{path} is damaged: it has neither 'ids' nor 'ids_file'")
    try:
        ids = np.array(content["ids"]) if "ids" in content else _load_array(path, content["ids_file"])
        if ids.size and not np.issubdtype(ids.dtype, np.signedinteger):
            raise ValueError(f"they are {ids.dtype}, and should be whole numbers")
        return ids.astype(np.int64).reshape(-1)
    except (ValueError, TypeError, OverflowError, EOFError, MemoryError) as error:
        raise ValueError(f"{path}: its ids cannot be read: {error}") from None


def _load_array(path: Path, name: object) -> np.ndarray:
    """The array in the file `name` beside `path`; a subset file never points elsewhere."""
    if not isinstance(name, str) or not name.strip(".") or any(character in name for character in "/\\:\0"):
        raise ValueError(f"'ids_file' is {shown(name)}, and should be the name of a file in the same folder")
    return load_array(below(path.parent, name))


def class_ids(requested: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Class indices of names or indices; a name comes before an index that reads the same.

    Raises:
        ValueError: an unknown class, with what is allowed.
    """
    ids = {str(index): index for index in range(len(classes))} | {name: i for i, name in enumerate(classes)}
    for item in requested:
        if item not in ids:
            raise ValueError(
                f"--subset.without_classes: unknown class {item!r}{did_you_mean(item, classes)} "
                f"(allowed: {listed(classes)}, or an index from 0 to {len(classes) - 1})"
            )
    return sorted({ids[item] for item in requested})
