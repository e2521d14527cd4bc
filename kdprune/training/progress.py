"""How far an unfinished training came: a small file, written every few seconds.

A kill leaves nothing else of what was done since the last checkpoint. It has to be done again, and belongs to what the
result cost.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

from kdprune.files import write_json
from kdprune.outside import read_json

FILE = "progress.json"
EVERY = 10.0  # seconds
_NAMES = ("steps", "seconds", "teacher_forward_samples")


class Progress:
    """What was spent so far, with all that was done twice.

    Args:
        folder: of the run's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._written_at = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._written_at >= EVERY

    def write(self, steps: int, seconds: float, teacher_forward_samples: int) -> None:
        """Nothing but a count depends on it, so a disk that is full does not stop the training here."""
        self._written_at = time.monotonic()
        with contextlib.suppress(OSError):
            write_json(self.path, dict(zip(_NAMES, (steps, seconds, teacher_forward_samples), strict=True)))

    def read(self) -> dict[str, float]:
        """What was written last, by name; nothing if there is none, or it cannot be read."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            content = read_json(self.path)
            if sorted(content) == sorted(_NAMES) and all(map(_is_count, content.values())):
                return content
        return {}


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
