"""The dynamics of a training: statistics of every sample after every epoch, a float16 file an epoch.

    FOLDER/dynamics.json        what the columns belong to
    FOLDER/labels.npy           int32 N
    FOLDER/epoch_0001.f16 …     S×N float16: each statistic of all N samples, by sample id; NaN: not observed

A file is as long as it will ever be from the start and is written in place, by any number of processes, each at the
places of its samples. So a training that was killed goes on from its last checkpoint and writes the same values again.
float16 keeps 11 bits of each value: ranks that differ by less than 5e-4 of the value are ties.

Shapes: N samples of the unpruned training set, P of them, S statistics, R repeats, E epochs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kdprune.files import check_space, load_array, write_json, write_whole
from kdprune.messages import listed, unknown
from kdprune.outside import TEXT, Kind, check_fields, check_format, list_of, read_json, whole
from kdprune.records.seals import changed, is_unbroken, seal
from kdprune.records.statistics import DERIVED, STATISTICS, derived

FOLDER = "dynamics"  # in a run directory
HEADER, LABELS = "dynamics.json", "labels.npy"
FORMAT = "kdprune dynamics 1"

View = Literal["training", "plain"]


@dataclass(frozen=True)
class About:
    """What the columns of a record belong to.

    Attributes:
        view: training: of each sample as it was trained on, in training mode; plain: without augmentation, in
            evaluation mode, after the epoch.
        epochs: that are recorded, 1 to E.
        total: N.
        fingerprint: of the data set.
        classes: their names.
        observed: how many of the samples are.
        model: whose training it is.
    """

    view: View
    epochs: int
    total: int
    fingerprint: str
    classes: tuple[str, ...]
    observed: int
    model: str
    statistics: tuple[str, ...] = STATISTICS
    format: str = field(default=FORMAT)

    @property
    def bytes(self) -> int:
        return 2 * len(self.statistics) * self.total * self.epochs


class DynamicsFiles:
    """The record of one training, being written.

    Args:
        folder: made by `create`.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self.about = folder, about
        self._open: dict[int, np.memmap] = {}

    def create(self, labels_N: np.ndarray) -> None:
        """Write the header and reserve the space, on one process; what is there already stays as it is.

        Raises:
            OSError: no space.
        """
        missing = [epoch for epoch in range(1, self.about.epochs + 1) if not self._is_whole(epoch)]
        check_space(
            self.folder, len(missing) * self.about.bytes // self.about.epochs, "the recorded dynamics",
            "record fewer epochs, or choose another --output",
        )  # fmt: skip
        write_json(self.folder / HEADER, asdict(self.about))
        write_whole(self.folder / LABELS, lambda file: np.save(file, labels_N.astype(np.int32), allow_pickle=False))
        for epoch in missing:
            _reserve(self._path(epoch), len(self.about.statistics) * self.about.total)

    def write(self, epoch: int, ids_P: np.ndarray, statistics_SP: np.ndarray) -> None:
        """Put down the statistics of some samples in an epoch (1 to E)."""
        largest = np.finfo(np.float16).max  # of margins; infinite ones of both signs would have no mean
        self._map(epoch)[:, ids_P] = statistics_SP.clip(-largest, largest).astype(np.float16)

    def flush(self) -> None:
        for column in self._open.values():
            column.flush()

    def seal(self, epoch: int) -> dict[str, Any]:
        """What is there of an epoch, for a checkpoint."""
        return seal(self._map(epoch).T)

    def check(self, epoch: int, sealed: dict[str, Any]) -> None:
        """Refuse an epoch that is not what was written before a checkpoint.

        Raises:
            ValueError: what to remove.
        """
        if not is_unbroken(sealed, self._map(epoch).T):
            raise ValueError(changed(self._path(epoch)))

    def unobserved(self, ids_P: np.ndarray) -> tuple[int, np.ndarray] | None:
        """The first epoch in which some of the samples have no entropy, and their ids; None if all are complete."""
        row = self.about.statistics.index("entropy")
        for epoch in range(1, self.about.epochs + 1):
            if len(missing := ids_P[np.isnan(self._map(epoch)[row][ids_P])]):
                return epoch, missing
        return None

    def names(self) -> list[str]:
        """Its files, for the digests of an artefact."""
        return [HEADER, LABELS, *(self._path(epoch).name for epoch in range(1, self.about.epochs + 1))]

    def _map(self, epoch: int) -> np.memmap:
        if epoch not in self._open:
            if len(self._open) > 2:  # a batch meets two epochs at most
                self._open.pop(min(self._open)).flush()
            shape = (len(self.about.statistics), self.about.total)
            self._open[epoch] = np.memmap(self._path(epoch), np.float16, "r+", shape=shape)
        return self._open[epoch]

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:04d}.f16"

    def _is_whole(self, epoch: int) -> bool:
        path = self._path(epoch)
        if path.is_symlink():  # it is written in place, and so is what it leads to
            return False
        return path.is_file() and path.stat().st_size == self.about.bytes // self.about.epochs


class Dynamics:
    """Records of several trainings on one data set, one a repeat, to be read.

    Args:
        folders: each with `dynamics.json`, or a run directory that has one.

    Raises:
        FileNotFoundError: a folder without a record.
        ValueError: a damaged one; records of different data, epochs or views.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [locate(folder) for folder in folders]
        self.repeats = [_read_header(folder) for folder in self.folders]
        self.about = self.repeats[0]
        for folder, about in zip(self.folders, self.repeats, strict=True):
            for name in ("fingerprint", "total", "epochs", "view", "statistics"):
                here, there = getattr(about, name), getattr(self.about, name)
                if here != there:
                    raise ValueError(
                        f"{folder} and {self.folders[0]} cannot be repeats of one record: {name} is "
                        f"{_short(here)} and {_short(there)}"
                    )
        self.labels = _read_labels(self.folders[0], self.about)

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """A statistic of the samples start … stop − 1, float32 R×E×N."""
        stored = DERIVED.get(name, name)
        if stored not in self.about.statistics:
            raise ValueError(unknown("recorded statistic", name, [*self.about.statistics, *DERIVED]))
        row = self.about.statistics.index(stored)
        columns = [
            [self._column(folder, row, epoch, start, stop) for epoch in range(1, self.about.epochs + 1)]
            for folder in self.folders
        ]
        values = torch.from_numpy(np.array(columns, dtype=np.float16)).float()
        return derived(name, values) if name in DERIVED else values

    def _column(self, folder: Path, row: int, epoch: int, start: int, stop: int) -> np.ndarray:
        path, total = folder / f"epoch_{epoch:04d}.f16", self.about.total
        expected = self.about.bytes // self.about.epochs
        if not path.is_file() or path.stat().st_size != expected:
            raise ValueError(
                f"{path} is {'cut short' if path.exists() else 'missing'}: the same command that records goes on with "
                "it if it was stopped"
            )
        return np.fromfile(path, np.float16, stop - start, offset=2 * (row * total + start))


def locate(folder: Path) -> Path:
    """The folder of the record: itself, or the one in a run directory.

    Raises:
        FileNotFoundError: neither.
    """
    for candidate in (folder, folder / FOLDER):
        if (candidate / HEADER).is_file():
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no record of dynamics: `kdprune record dynamics` makes one, and so does --train.record"
    )


_FIELDS = {
    "view": Kind("training or plain", lambda value: value in get_args(View)), "epochs": whole(1, 10**6),
    "total": whole(1, 2**48), "fingerprint": TEXT, "classes": list_of(TEXT), "observed": whole(0), "model": TEXT,
    "statistics": list_of(TEXT),
}  # fmt: skip


def _read_header(folder: Path) -> About:
    path = folder / HEADER
    content = read_json(path)
    check_format(content, FORMAT, str(path), "a record of dynamics")
    check_fields(content, _FIELDS, str(path))
    known = {name: content[name] for name in _FIELDS}
    return About(**{**known, "classes": tuple(content["classes"]), "statistics": tuple(content["statistics"])})


def _read_labels(folder: Path, about: About) -> np.ndarray:
    labels = load_array(folder / LABELS)
    if labels.shape != (about.total,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{folder / LABELS} is damaged: {labels.dtype} of shape {labels.shape}")
    return np.asarray(labels, dtype=np.int64)


def _reserve(path: Path, count: int) -> None:
    """A file of `count` NaNs. It is written, since a store into a hole of a full disk would kill the process."""
    nothing = np.full(2**20, np.nan, dtype=np.float16)

    def write(file: Any) -> None:
        for start in range(0, count, len(nothing)):
            file.write(nothing[: count - start].data)

    write_whole(path, write)


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, tuple) else listed(value)
    return text if len(text) < 20 else f"{text[:16]}…"
