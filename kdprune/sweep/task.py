"""One piece of work of a sweep, as the process that does it sees it, wherever a launcher has started it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdprune.config import Config
from kdprune.pipeline.needs import Need, make
from kdprune.pipeline.train import run
from kdprune.training.interrupt import Interrupted

END_OF_LOG = 20  # lines that are kept with a failure
ATTEMPT = "----- attempt"  # how the line between two attempts in a log begins

State = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class Task:
    """Something to make.

    Attributes:
        id: of its node.
        work: a run by its settings, or what runs share.
        log: file that all output goes to.
    """

    id: str
    work: Config | Need
    log: Path


@dataclass(frozen=True)
class Event:
    """What became of a task, or how far it is.

    Attributes:
        id: of the task's node.
        details: `label`, `epoch`, `epochs` and perhaps `test_top1`, `val_top1` while it is running; `path` of the run
            that it finished; `error` and `log`, the end of its output, where it failed.
    """

    id: str
    state: State
    details: dict[str, Any]


def perform(task: Task, tell: Callable[[Event], None]) -> Event:
    """Do a task, whatever becomes of it; what it says goes to its log.

    Args:
        tell: is given an event after each epoch.
    """
    with _logged(lambda details: tell(Event(task.id, "running", details))):
        try:
            path = run(task.work)[0].path if isinstance(task.work, Config) else make(task.work)
        except (Interrupted, KeyboardInterrupt) as error:
            return Event(task.id, "failed", {"error": str(error) or "it was interrupted", "log": end_of(task.log)})
        except Exception as error:
            print(*_described(error), sep="\n", file=sys.stderr, flush=True)
            return Event(task.id, "failed", {"error": str(error) or type(error).__name__, "log": end_of(task.log)})
    return Event(task.id, "finished", {} if path is None else {"path": str(path)})


def with_workers(task: Task, count: int) -> Task:
    """The task with as many processes that read data as it has cores, unless its settings say how many."""
    config = task.work if isinstance(task.work, Config) else task.work.config
    if config.data.workers is not None:
        return task
    config = replace(config, data=replace(config.data, workers=count))
    return replace(task, work=config if isinstance(task.work, Config) else replace(task.work, config=config))


def end_of(log: Path) -> str:
    """The last lines of a log, of the last attempt."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 10_000))
        lines = file.read().decode(errors="replace").splitlines()[-END_OF_LOG:]
        begun = max((number for number, line in enumerate(lines, 1) if line.startswith(ATTEMPT)), default=0)
        return "\n".join(lines[begun:])
    return ""


def mark_attempt(log: Path) -> None:
    """Part what a task is going to say from what its log holds of earlier attempts, if any."""
    with contextlib.suppress(FileNotFoundError), open(log, "rb+") as file:
        text = file.read()
        if text:
            number = 2 + sum(line.startswith(ATTEMPT.encode()) for line in text.splitlines())
            torn = "" if text.endswith(b"\n") else "\n"
            file.write(f"{torn}{ATTEMPT} {number}, {time.strftime('%Y-%m-%d %H:%M:%S %z')} -----\n".encode())


def _described(error: Exception) -> list[str]:
    """What a user got wrong in one line, all else with its traceback."""
    if isinstance(error, ValueError | OSError | ArithmeticError):
        return [f"error: {error}"]
    return [line.rstrip() for line in traceback.format_exception(error)]


@contextlib.contextmanager
def _logged(tell: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """What the package logs goes to stderr, and what an epoch came to also to `tell`."""
    log, handler = logging.getLogger("kdprune"), _Epochs(tell)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(levelname)s  %(message)s", "%H:%M:%S"))
    before = log.level, log.propagate
    log.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


class _Epochs(logging.StreamHandler[Any]):
    """Hears of epochs by what the trainer attaches to their lines in the log."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(sys.stderr)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        progress = getattr(record, "progress", None)
        if progress is not None:
            self._tell(progress)
