"""The predictions of the last epochs, for as long as a training is recorded: how far each moved since the epoch before.

One float16 file N×C an epoch, of log-probabilities, by sample id. What an unfinished training may still go back to
stays; the rest is removed on the way, and all of it at the end.

Shapes: N samples of the unpruned training set, P of them, C classes.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from kdprune.files import write_whole
from kdprune.records.seals import changed, is_unbroken, seal
from kdprune.records.statistics import temporal_divergence

_PREFIX = ".predictions_"


class Predictions:
    """Log-probabilities of samples by epoch, shared by the processes of a training.

    Args:
        folder: of the record.
        total: N.
        classes: C.
    """

    def __init__(self, folder: Path, total: int, classes: int) -> None:
        self.folder, self.total, self.classes = folder, total, classes

    @property
    def bytes(self) -> int:
        """Of an epoch; two epochs at least are there at a time."""
        return 2 * self.total * self.classes

    def exchange(self, epoch: int, ids_P: np.ndarray, log_p_PC: Tensor) -> Tensor:
        """Keep what is predicted in an epoch (from 1 on), and give the divergence from the epoch before, P.

        NaN in the first epoch, and where the epoch before is not there.
        """
        rounded = log_p_PC.half()  # the next epoch meets it rounded, so this one is, too
        self._map(epoch)[ids_P] = rounded.numpy()
        if epoch == 1:
            return torch.full((len(ids_P),), torch.nan)
        before = torch.from_numpy(self._map(epoch - 1)[ids_P])
        return temporal_divergence(rounded.float(), before.float())

    def seals(self, since: int) -> dict[int, dict[str, Any]]:
        """What is there of the epochs from `since` on, for a checkpoint; earlier ones may be forgotten before it is."""
        return {epoch: seal(self._map(epoch)) for epoch in sorted(self._epochs()) if epoch >= since}

    def check(self, epoch: int, sealed: dict[str, Any]) -> None:
        """Refuse predictions that are not what was written before a checkpoint."""
        if epoch not in self._epochs() or not is_unbroken(sealed, self._map(epoch)):
            raise ValueError(changed(self._path(epoch)))

    def forget(self, keep: Collection[int], since: int) -> None:
        """Remove the files of epochs before `since`, but for those that are to be kept."""
        for epoch in self._epochs():
            if epoch < since and epoch not in keep:
                self._path(epoch).unlink(missing_ok=True)

    def _epochs(self) -> set[int]:
        names = [path.stem.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*.f16") if path.is_file()]
        return {int(name) for name in names if name.isdigit()}

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{_PREFIX}{epoch:06d}.f16"

    def _map(self, epoch: int) -> np.memmap:
        path = self._path(epoch)
        if not path.exists():
            self._reserve(path)
        return np.memmap(path, np.float16, "r+", shape=(self.total, self.classes))

    def _reserve(self, path: Path) -> None:
        """Make a file of NaNs unless another process just did, whose values stay. Written, since a store into a hole of
        a full disk would kill the process."""
        nothing = np.full(min(2**20, self.total * self.classes), np.nan, dtype=np.float16)

        def write(file: BinaryIO) -> None:
            for start in range(0, self.total * self.classes, len(nothing)):
                file.write(nothing[: self.total * self.classes - start].data)

        write_whole(path, write, replace=False)


def remove_predictions(folder: Path) -> None:
    """Remove all predictions in a folder, and what a kill may have left of them."""
    for path in folder.glob(f"{_PREFIX}*"):
        path.unlink(missing_ok=True)
