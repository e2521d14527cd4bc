"""A task as a command of its own, for several processes and for batch systems: files say what is to be done and done.

`NAME.task.json` holds the task, and what becomes of it is appended to `NAME.events.jsonl`, a line each. Whoever follows
it sees the same whether the command runs beside it or on another machine that has the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kdprune.config import Config, from_dict, to_dict
from kdprune.files import write_json
from kdprune.outside import MAPPING, TEXT, check_fields, open_regular, parse_json, read_json
from kdprune.pipeline.needs import Kind, Need
from kdprune.sweep.task import Event, State, Task, perform

RUN = "run"
_TASK = {"id": TEXT, "log": TEXT, "kind": TEXT, "what": TEXT, "folder": TEXT, "config": MAPPING}
_EVENT = {"id": TEXT, "state": TEXT, "details": MAPPING}


@dataclass
class Files:
    """The files of a task.

    Args:
        place: path without an ending.
    """

    place: Path

    @property
    def task(self) -> Path:
        return self.place.with_name(f"{self.place.name}.task.json")

    @property
    def events(self) -> Path:
        return self.place.with_name(f"{self.place.name}.events.jsonl")

    def write(self, task: Task) -> None:
        """Say what is to be done; what was said of it before is gone."""
        self.events.unlink(missing_ok=True)
        need = task.work if isinstance(task.work, Need) else None
        config = task.work if isinstance(task.work, Config) else task.work.config
        what = {"kind": RUN, "what": "", "folder": ""} if need is None else {n: getattr(need, n) for n in _OF_NEED}
        write_json(self.task, {"id": task.id, "log": str(task.log), **what, "config": to_dict(config)})

    def read(self) -> Task:
        """What is to be done.

        Raises:
            FileNotFoundError, ValueError: it is not said, or the file is damaged.
        """
        content = check_fields(read_json(self.task), _TASK, str(self.task))
        config, kind = from_dict(content["config"]), content["kind"]
        if kind not in (RUN, *get_args(Kind)):
            raise ValueError(f"{self.task} is damaged: {kind!r} is no kind of task")
        need = None if kind == RUN else Need(kind, content["what"], content["id"], config, content["folder"])
        return Task(content["id"], need or config, Path(content["log"]))

    def tell(self, event: Event) -> None:
        """Append what has become of it."""
        line = json.dumps({"id": event.id, "state": event.state, "details": event.details}, default=float)
        with open(self.events, "ab") as file:
            file.write(line.encode() + b"\n")


_OF_NEED = ("kind", "what", "folder")


class Follower:
    """What has become of a task since it was last asked for."""

    def __init__(self, files: Files) -> None:
        self.files, self._read = files, 0

    def events(self) -> Iterator[Event]:
        """The lines that are whole; one that is no event is passed over."""
        with contextlib.suppress(FileNotFoundError), open_regular(self.files.events) as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                with contextlib.suppress(ValueError):
                    yield _event(parse_json(line, str(self.files.events)))


def perform_at(place: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Do the task at a place in this process, which may be one of several; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of training it is an interruption, too
    files = Files(place)
    task, is_main = files.read(), environment.get("RANK", "0") == "0"
    event = perform(task, files.tell if is_main else _nobody)
    if is_main:
        files.tell(event)
    return 0 if event.state == "finished" else 1


def _nobody(event: Event) -> None:
    """Is told what the main process tells."""


def _event(content: Any) -> Event:
    check_fields(content, _EVENT, "an event")
    state: State = content["state"]
    if state not in get_args(State):
        raise ValueError(f"{state!r} is no state")
    return Event(content["id"], state, content["details"])
