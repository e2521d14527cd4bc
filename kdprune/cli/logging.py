"""What the package logs, on the console: above progress bars, warnings named, one process only."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from kdprune import bars
from kdprune.cli.streams import is_for_people

log = logging.getLogger("kdprune")


@contextlib.contextmanager
def log_to_console() -> Iterator[None]:
    """Show the log on stderr, and progress bars on a terminal; other processes than the main one show errors only."""
    handler = _AboveTheBar()
    handler.setFormatter(_WarningsAreNamed("%(asctime)s  %(message)s", "%H:%M:%S"))
    before, hook = (log.level, log.propagate), threading.excepthook
    log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    log.propagate = False
    log.addHandler(handler)
    threading.excepthook = _without_traceback
    try:
        with bars.show() if is_for_people() else contextlib.nullcontext():
            yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        threading.excepthook = hook


def _without_traceback(arguments: threading.ExceptHookArgs) -> None:
    """A tracker writes in a thread, and says it again in the main one, if its disk is full."""
    if isinstance(arguments.exc_value, OSError):
        log.warning("in a thread of this process: %s", arguments.exc_value)
    else:
        threading.__excepthook__(arguments)


class _AboveTheBar(logging.Handler):
    """Lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _WarningsAreNamed(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)
