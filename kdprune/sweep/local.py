"""Tasks on this machine: each in a process and a process group of its own, with its share of cores and GPUs.

The processes are forked from one that has everything imported and nothing computed, so that a short run does not pay
for seconds of imports, and a crash takes nothing with it. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import ensure_running
from typing import TYPE_CHECKING, Any

from kdprune.sweep.share import Share, cores, gpus, shares, threads_given

if TYPE_CHECKING:
    from kdprune.sweep.task import Event, Task

PATIENCE = 60.0  # seconds for a task to write its checkpoint after it was asked to end
LOOK_EVERY = 0.2  # seconds, at several processes of a run
_IMPORTED_LATER = {"digits": ["sklearn.datasets"], "torch": ["torchvision.datasets"]}
_FORKED = "forkserver" in multiprocessing.get_all_start_methods()


class LocalLauncher:
    """Runs as many tasks at a time as it has slots. Use it as a context: at its end no process is left.

    They end by themselves, with a checkpoint, when this process dies, whatever it dies of.

    Args:
        jobs, processes, runs_per_gpu: see `shares`.
        dataset: that the tasks open; what reading it takes is imported once, too.
        slots: the shares themselves, where somebody else has dealt them out.

    Raises:
        ValueError: see `shares`; of GPUs when the slots are first asked for.
    """

    def __init__(
        self,
        jobs: int | None = None,
        dataset: str = "",
        processes: int = 1,
        runs_per_gpu: int | None = None,
        slots: Sequence[Share] | None = None,
    ) -> None:
        shares(jobs, cores(), (), processes, runs_per_gpu)  # a wrong number shows before anything is imported
        self._dealt = slots
        self._asked = jobs, processes, runs_per_gpu
        self._imports = ["kdprune.sweep.task", *_IMPORTED_LATER.get(dataset.partition("/")[0], [])]
        self._context: Any = multiprocessing.get_context("forkserver" if _FORKED else "spawn")
        self._tasks: dict[Connection, tuple[int, Any, Task]] = {}

    def __enter__(self) -> LocalLauncher:
        if _FORKED:
            self._context.set_forkserver_preload(self._imports)
            ensure_running()  # it imports while the sweep is planned
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        for connection, (_, process, _) in self._tasks.items():
            process.join(PATIENCE)
            _kill_group(process)
            connection.close()
        self._tasks = {}

    @cached_property
    def slots(self) -> Sequence[Share]:
        """What each task that is under way has."""
        if self._dealt is not None:
            return self._dealt
        jobs, processes, runs_per_gpu = self._asked
        return shares(jobs, cores(), gpus(), processes, runs_per_gpu, threads_given())

    @property
    def at_once(self) -> int:
        """How many tasks are under way at a time."""
        return len(self.slots)

    @property
    def threads(self) -> int:
        """Of each process of a task."""
        return self.slots[0].threads

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        return self.at_once - len(self._tasks)

    @property
    def remembered(self) -> frozenset[str]:
        """Ids of tasks that have outlived another process: none here."""
        return frozenset()

    def start(self, task: Task) -> None:
        """Begin a task."""
        slot = min(set(range(len(self.slots))) - {taken for taken, _, _ in self._tasks.values()})
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, task, self.slots[slot]))
        process.start()
        theirs.close()
        self._tasks[ours] = slot, process, task

    def events(self, timeout: float) -> list[Event]:
        """What has happened since, waited for up to `timeout` seconds if nothing has."""
        ready = wait(list(self._tasks), timeout)
        return [event for connection in list(self._tasks) if connection in ready for event in self._read(connection)]

    def stop(self) -> None:
        """Ask all tasks to end at the next step; they tell when they have."""
        for _, process, _ in self._tasks.values():
            process.terminate()

    def _read(self, connection: Connection) -> list[Event]:
        from kdprune.sweep.task import Event, end_of

        _, process, task = self._tasks[connection]
        try:
            event: Event = connection.recv()
        except (EOFError, OSError):
            process.join(PATIENCE)
            error = f"its process died ({_reason(process.exitcode)})"
            event = Event(task.id, "failed", {"error": error, "log": end_of(task.log)})
        if event.state != "running":
            process.join(PATIENCE)
            _kill_group(process)
            connection.close()
            del self._tasks[connection]
        return [event]


def _work(connection: Connection, task: Task, share: Share) -> None:
    """The process of a task."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of training it is an interruption, too
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C reaches the sweep alone, which then tells its tasks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(share.environment())
    if share.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)

    import torch

    from kdprune.sweep.task import Event, perform, with_workers

    # What was imported stays. To look through it for garbage after each training would take .3 s, and a copy of every
    # page that is still shared with the process that this one was forked from.
    gc.freeze()
    torch.set_num_threads(share.threads)
    task = with_workers(task, share.threads)
    try:
        if share.processes > 1:
            event = _by_several(task, share.processes, connection.send)
        else:
            event = perform(task, connection.send)
    except KeyboardInterrupt:
        event = Event(task.id, "failed", {"error": "it was interrupted"})
    with contextlib.suppress(OSError):
        connection.send(event)


def _by_several(task: Task, processes: int, tell: Callable[[Event], None]) -> Event:
    """Do a task by several processes, which this one follows until they have ended."""
    from kdprune.sweep.apart import Files, Follower
    from kdprune.sweep.job import command
    from kdprune.sweep.task import Event, end_of

    place = task.log.with_suffix("")
    files = Files(place)
    files.write(task)
    follower, end = Follower(files), None
    process, running = subprocess.Popen(command(place, processes), stdin=subprocess.DEVNULL), True
    while running:
        try:
            running = process.poll() is None
            for event in follower.events():
                if event.state == "running":
                    tell(event)
                else:
                    end = event  # told when all of its processes have ended
            time.sleep(LOOK_EVERY if running else 0)
        except KeyboardInterrupt:
            process.terminate()  # torchrun hands it on, and waits for them
    error = f"its processes died ({_reason(process.returncode)})"
    return end or Event(task.id, "failed", {"error": error, "log": end_of(task.log)})


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os.killpg(0, signal.SIGKILL)


def _kill_group(process: Any) -> None:
    """End what a task's process may have left, such as processes that read data."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _reason(code: int | None) -> str:
    return f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
