"""SIGINT and SIGTERM ask the loop to stop at the end of a step, so that it can write a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

ECHO = 10.0
"""Seconds in which a further SIGTERM is the same request: a batch system sends it to the launcher and to what that has
started, and the launcher passes it on."""


class StopRequest:
    """`with StopRequest() as stop:` … `if stop.signal:`. A second signal stops at once, as usual, and so does one that
    nobody has looked for any more when the context ends."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.signal is not None and error is None:
            signal.raise_signal(signal.Signals[self.signal])

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT or time.monotonic() - self._since >= ECHO:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)


class Interrupted(Exception):
    """A run was asked to stop; its state is on disk. The message says how to go on."""
