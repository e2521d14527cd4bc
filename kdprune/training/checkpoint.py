"""Checkpoints: all that a run needs to go on as if it had not been stopped, one file each, whole or not there."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from kdprune.files import write_whole

log = logging.getLogger("kdprune")

_NAME = re.compile(r"step_(\d+)\.pth")


class Checkpoints:
    """The checkpoints of a run directory.

    Args:
        folder: where they are.
        keep: how many of the latest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps, then let go of the oldest ones."""
        write_whole(self.folder / f"step_{step:09d}.pth", lambda file: torch.save(state, file))
        for path in self.paths()[: -self.keep]:
            path.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The newest state that can be read, on the host; None if there is none."""
        for path in reversed(self.paths()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch.load raises many kinds on a damaged file
                log.warning("%s cannot be read (%s): the one before it is taken", path, error)
        return None

    def clear(self) -> None:
        """A finished run needs none, nor what a kill in the middle of one has left."""
        for path in [*self.paths(), *self.folder.glob(".step_*.tmp")]:
            path.unlink()

    def paths(self) -> list[Path]:
        """All of them, oldest first."""
        return sorted(p for p in self.folder.glob("step_*.pth") if _NAME.fullmatch(p.name))
