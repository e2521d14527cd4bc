"""A job of a batch system: starts a task as a command and sees to its end. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STOP = ".stop"
PATIENCE = 75.0  # seconds for a checkpoint; Slurm tells of a time limit 90 seconds before it
LOOK_EVERY = 0.5  # seconds


def command(place: Path, processes: int) -> list[str]:
    """What does the task whose files are at a place.

    torchrun is what `accelerate launch` becomes for several processes of a machine; it starts several on a CPU, too.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "kdprune.cli.task", str(place)]


def stop_file(place: Path) -> Path:
    """Who writes it asks the task to end with a checkpoint."""
    return place.with_name(f"{place.name}{STOP}")


class Job:
    """What submitit calls on a node: starts a task as a command and sees that it ends with a checkpoint.

    Args:
        place: of the task's files.
        log: of all that it says.
    """

    def __init__(self, place: Path, log: Path, processes: int) -> None:
        self.place, self.log, self.processes = place, log, processes
        self.folder = os.getcwd()  # settings may name files relative to it
        self._process: Any = None
        self._stopping = False

    def __call__(self) -> None:
        os.chdir(self.folder)
        signal.signal(signal.SIGTERM, self._end_it)  # of scancel; submitit would go on
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as file:
            self._process = subprocess.Popen(
                command(self.place, self.processes), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                preexec_fn=_ignore_user_signals,
            )  # fmt: skip
        while self._process.poll() is None:
            if not self._stopping and stop_file(self.place).exists():
                self._end_it()
            time.sleep(LOOK_EVERY)

    def checkpoint(self) -> Any:
        """At a time limit or a preemption: end with a checkpoint, and go on later."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._end_it()
            until = time.monotonic() + PATIENCE
            while self._process.poll() is None and time.monotonic() < until:
                time.sleep(LOOK_EVERY)
        again = Job(self.place, self.log, self.processes)
        again.folder = self.folder
        return DelayedSubmission(again)

    __submitit_checkpoint__ = checkpoint  # its name in later versions

    def _end_it(self, *_: object) -> None:
        self._stopping = True
        if self._process is not None:
            self._process.terminate()


def _ignore_user_signals() -> None:
    """Slurm signals all processes of a job, and only that of submitit is meant."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
