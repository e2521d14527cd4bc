"""A record as scorers read it: values by name and sample, and what the scores of it belong to.

Shapes: N samples of the unpruned training set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdprune.artefact import FILE, damage, key_hash, read_record
from kdprune.records import dynamics
from kdprune.records.dynamics import Dynamics
from kdprune.records.rows import RowRecord, Rows


class Values(Protocol):
    """The recorded values of a kind of record."""

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Of the samples start … stop − 1."""


class Columns(Protocol):
    """A record of rows."""

    def rows(self, name: str) -> Rows:
        """A column: `len()`, and slices as arrays float32."""


@dataclass(frozen=True)
class Observation:
    """A finished record.

    Attributes:
        kind: dynamics, embeddings, gradients, teacher or memorization; nothing, where labels are all that is known.
        labels: int64 N, −1 where there is none.
        fingerprint: of the data set.
        classes: their names.
        origin: what it is made of, JSON values: hashes, and how it was observed.
        values: by name and block of samples; rows of embeddings by name.
        members: several teachers, each observed by itself; a scorer scores each of them, and the mean is taken.
    """

    kind: str
    labels: np.ndarray
    fingerprint: str
    classes: tuple[str, ...]
    origin: dict[str, Any]
    values: Values | None = None
    record: Columns | None = field(default=None, repr=False)
    members: tuple[Observation, ...] = ()

    @property
    def total(self) -> int:
        return len(self.labels)

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """A recorded value of the samples start … stop − 1 (see `RECORDED` for the shapes)."""
        if self.values is not None:
            return self.values.read(name, start, stop)
        return torch.from_numpy(self.rows(name)[start:stop])

    def rows(self, name: str) -> Rows:
        """Rows of all samples, of which a scorer reads slices."""
        assert self.record is not None
        return self.record.rows(name)


def observe(folders: Sequence[Path]) -> Observation:
    """Open a finished record: one folder, those of several trainings, one a repeat, or those of several teachers.

    Raises:
        FileNotFoundError: a folder that holds none.
        ValueError: it is not finished, or damaged; several folders that do not belong together.
    """
    first = folders[0]
    try:
        dynamics.locate(first)
    except FileNotFoundError:
        if not (first / "rows.json").is_file():
            raise FileNotFoundError(f"{first} holds no record: `kdprune record` makes one") from None
    else:
        record = Dynamics(folders)
        if len({folder.resolve() for folder in record.folders}) < len(folders):
            raise ValueError(f"{', '.join(map(str, folders))}: a record is given twice, and repeats are of several")
        origin = {"kind": "dynamics", "view": record.about.view, "epochs": record.about.epochs,
                  "model": record.about.model, "observed": [contents(folder) for folder in folders]}  # fmt: skip
        about = record.about
        return Observation("dynamics", record.labels, about.fingerprint, about.classes, origin, record)
    members = [_of_rows(folder) for folder in folders]
    return members[0] if len(members) == 1 else _ensemble(members, folders)


def _of_rows(folder: Path) -> Observation:
    rows = RowRecord(folder)
    about, origin = rows.about, {"kind": rows.about.kind, **rows.about.origin, "observed": [contents(folder)]}
    return Observation(about.kind, rows.labels, about.fingerprint, about.classes, origin, record=rows)


def _ensemble(members: Sequence[Observation], folders: Sequence[Path]) -> Observation:
    """Several teachers: what they are scored by is averaged."""
    first = members[0]
    for one, folder in zip(members, folders, strict=True):
        if one.kind != "teacher":
            raise ValueError(
                f"{len(folders)} records given, and {folder} is one of {one.kind}: several are dynamics, one a repeat, "
                "or of teachers"
            )
        if (one.fingerprint, one.total) != (first.fingerprint, first.total):
            raise ValueError(f"{folder} and {folders[0]} are records of different data sets")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{', '.join(map(str, folders))}: a record is given twice, and an ensemble is of several")
    both = {name: [one for member in members for one in member.origin[name]] for name in ("models", "observed")}
    return replace(first, origin={**first.origin, **both}, record=None, members=tuple(members))


def contents(folder: Path) -> str:
    """A hash of what a finished record holds; of a run, of what it recorded.

    Raises:
        ValueError: it is not finished, or not as it was written.
    """
    owner = folder if (folder / FILE).is_file() else folder.parent
    record = read_record(owner)
    if record is None or "files" not in record:
        raise ValueError(
            f"{owner} is not finished, so that its record is incomplete: the command that began it goes on with it"
        )
    if found := damage(owner):
        raise ValueError(f"{'; '.join(found)}: --remake true makes it again")
    return digests_hash(record["files"])


def digests_hash(files: Mapping[str, str]) -> str:
    """A hash of the files that belong to a record, by their digests."""
    recorded = {name: digest for name, digest in files.items() if name.startswith(f"{dynamics.FOLDER}/")}
    return key_hash(recorded or files)
