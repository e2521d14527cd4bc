"""Tasks on this machine: each in a process and a process group of its own, with its share of cores and GPUs.

The processes are forked from one that has everything imported and nothing computed, so that a short run does not pay
for seconds of imports, and a crash takes nothing with it. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import ensure_running
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdprune.sweep.task import Event, Task

PATIENCE = 60.0  # seconds for a task to write its checkpoint after it was asked to end
_IMPORTED_LATER = {"digits": ["sklearn.datasets"], "torch": ["torchvision.datasets"]}
_FORKED = "forkserver" in multiprocessing.get_all_start_methods()


class LocalLauncher:
    """Runs up to `jobs` tasks at a time. Use it as a context: at its end no process is left.

    They end by themselves, with a checkpoint, when this process dies, whatever it dies of.

    Args:
        dataset: that the tasks open; what reading it takes is imported once, too.

    Raises:
        ValueError: fewer than one job.
    """

    def __init__(self, jobs: int, dataset: str = "") -> None:
        if jobs < 1:
            raise ValueError(f"--jobs: {jobs} given, allowed is 1 or more")
        self.slots = jobs
        self.threads = _threads(jobs)
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

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        return self.slots - len(self._tasks)

    def start(self, task: Task) -> None:
        """Begin a task."""
        slot = min(set(range(self.slots)) - {taken for taken, _, _ in self._tasks.values()})
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(theirs, task, self.threads, slot))
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


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_of(slot: int, visible: Sequence[str]) -> str | None:
    """Which GPU a slot computes on; None where there is nothing to choose from. Slots beyond the last share them."""
    return visible[slot % len(visible)] if len(visible) > 1 else None


def _threads(jobs: int) -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, cores() // jobs)


def _work(connection: Connection, task: Task, threads: int, slot: int) -> None:
    """The process of a task."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of training it is an interruption, too
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C reaches the sweep alone, which then tells its tasks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    import torch

    from kdprune.sweep.task import Event, perform, with_workers

    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    if (gpu := device_of(slot, gpus)) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    try:
        event = perform(with_workers(task, threads), connection.send)
    except KeyboardInterrupt:
        event = Event(task.id, "failed", {"error": "it was interrupted"})
    with contextlib.suppress(OSError):
        connection.send(event)


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
