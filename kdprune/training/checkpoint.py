"""Checkpoints: the state of an unfinished run, one file each, whole or not there, for the run that wrote it alone."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from kdprune.artefact import Key, differences
from kdprune.files import write_whole
from kdprune.outside import FINITE, MAPPING, TEXT, check_fields, list_of, open_regular, parse_json, whole
from kdprune.training.progress import FILE

log = logging.getLogger("kdprune")

_NAME = re.compile(r"step_(\d+)\.pth")


class Checkpoints:
    """The checkpoints of a run directory.

    Args:
        folder: where they are.
        key: of the run; a checkpoint of another run is refused.
        keep: how many of the latest stay.
    """

    def __init__(self, folder: Path, key: Key, keep: int) -> None:
        self.folder, self.key, self.keep = folder, key, keep
        self._can_be_read = False  # seen once a run, since only what kinds of values there are decides

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps, then let go of the oldest ones.

        Raises:
            ValueError: it holds values that cannot be read back, such as an array of numpy in an observer's state.
        """
        content = io.BytesIO()  # torch's own writer hides a full disk behind a RuntimeError
        torch.save({**state, "key": json.dumps(self.key)}, content)
        if not self._can_be_read:
            _check_can_be_read(content, state)
            self._can_be_read = True
        path = self.folder / f"step_{step:09d}.pth"
        write_whole(path, lambda file: file.write(content.getbuffer()))
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def latest(self) -> dict[str, Any] | None:
        """The newest state that is as it was written, on the host; None if there is none.

        Raises:
            ValueError: it was written by another run; the message says what differs.
        """
        for path in reversed(self.paths()):
            try:
                state = _read(path)
                key = check_fields(parse_json(state["key"], f"the key in {path}"), {}, f"the key in {path}")
            except Exception as error:  # torch.load and zipfile raise many kinds on a damaged file
                log.warning("%s cannot be read (%s): the one before it is taken", path, error)
                continue
            if different := differences(key, self.key):
                raise ValueError(f"{path} was written by another run ({'; '.join(different)}): remove it")
            return {**state, "path": path}
        return None

    def clear(self) -> None:
        """A finished run needs none, nor what a kill in the middle of one has left."""
        for path in [*self.paths(), *self.folder.glob(".*.tmp"), self.folder / FILE]:
            path.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """All of them, oldest first."""
        return sorted(p for p in self.folder.glob("step_*.pth") if _NAME.fullmatch(p.name))


def damaged_checkpoints(paths: list[Path]) -> list[str]:
    """What is wrong with checkpoints, a line each."""
    problems = []
    for path in paths:
        try:
            _read(path)
        except Exception as error:  # torch.load and zipfile raise many kinds on a damaged file
            problems.append(f"{path} is not what was written: {error}")
    return problems


def _check_can_be_read(content: io.BytesIO, state: dict[str, Any]) -> None:
    """Nothing that is loaded runs code, so an observer may remember tensors and plain values only."""
    try:
        _load(content)
    except pickle.UnpicklingError:
        for name, part in state.get("parts", {}).items():
            alone = io.BytesIO()
            torch.save(part, alone)
            try:
                _load(alone)
            except pickle.UnpicklingError:
                raise ValueError(
                    f"the state of {name!r} cannot be kept in a checkpoint; allowed are tensors, numbers, texts, None, "
                    "and lists, tuples and dictionaries of them"
                ) from None
        raise


_FIELDS = {
    "key": TEXT, "step": whole(0), "history": list_of(MAPPING), "seconds": list_of(FINITE), "parts": MAPPING,
}  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint whose every bit is as it was written.

    torch writes a CRC-32 of each record and never looks at it; the zip format's own check does.
    """
    with open_regular(path) as file:
        content = io.BytesIO(file.read())
    with zipfile.ZipFile(content) as archive:
        if packed := [record.filename for record in archive.infolist() if record.compress_type]:
            raise ValueError(f"its record {packed[0]} is compressed, and torch compresses none")
        if (record := archive.testzip()) is not None:
            raise ValueError(f"its record {record} has changed")
    state = check_fields(_load(content), _FIELDS, str(path))
    parse_json(state["key"], f"the key in {path}")
    return state


def _load(content: io.BytesIO) -> Any:
    content.seek(0)
    return torch.load(content, map_location="cpu", weights_only=True)
