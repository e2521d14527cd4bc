"""Local processes that call a function on items, as `map` does: one thread each, results in the order of the items.

An executor of the standard library would send the function, centroids and all, with every item, and its processes would
outlive a parent that is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from kdprune.runs.sent import packed, unpacked

AHEAD = 2  # results for each worker that may wait for their turn
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PATIENCE = 5.0  # seconds for a worker to end by itself


class Processes:
    """A mapper: `processes(function, *iterables)` gives what `map` gives. Use it as a context.

    A function is sent once to each worker, and items one at a time as workers become free. Function and items must
    pickle. Workers are started when they are first needed, share nothing with this process, and die with it.

    Args:
        count: how many.

    Raises:
        ChildProcessError: from a call, a worker died.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: dict[Connection, Any] = {}
        self._busy: dict[Connection, int] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for connection in self._workers:
            connection.close()  # an idle worker ends by this
        for process in self._workers.values():
            if error is not None or self._busy:
                process.terminate()
            process.join(PATIENCE)
            process.kill()
        self._workers, self._busy = {}, {}

    def __call__(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        self._start()
        for connection in list(self._busy):  # of a call whose results were not all wanted
            self._receive(connection)
        for connection in self._workers:
            self._send(connection, (function, None))
        items, idle = enumerate(zip(*iterables, strict=False)), list(self._workers)
        results: dict[int, Any] = {}
        given, item = 0, next(items, None)
        while item is not None or self._busy:
            while idle and item is not None and item[0] < given + AHEAD * self.count:
                connection = idle.pop()
                self._send(connection, (None, item[1]))
                self._busy[connection] = item[0]
                item = next(items, None)
            ready = wait(list(self._busy))
            for connection in [c for c in self._busy if c in ready]:
                place = self._busy[connection]
                results[place] = self._receive(connection)
                idle.append(connection)
            while given in results:
                succeeded, result = results.pop(given)
                if not succeeded:
                    raise result
                yield unpacked(result)
                given += 1

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(METHOD)
        if METHOD == "forkserver":
            context.set_forkserver_preload(["torch"])
        with _interrupts_ignored():  # Ctrl-C reaches all processes, and only this one has to answer
            while len(self._workers) < self.count:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._workers[ours] = process

    def _send(self, connection: Connection, message: tuple[Any, Any]) -> None:
        try:
            connection.send(packed(message))
        except (BrokenPipeError, ConnectionResetError):
            raise self._dead(connection) from None

    def _receive(self, connection: Connection) -> tuple[bool, Any]:
        try:
            result = connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._dead(connection) from None
        del self._busy[connection]
        return result

    def _dead(self, connection: Connection) -> ChildProcessError:
        process = self._workers[connection]
        process.join(PATIENCE)
        return ChildProcessError(
            f"worker {process.pid} died ({_reason(process.exitcode)}); if memory ran out, use fewer workers; what was "
            "finished is kept"
        )


def _reason(code: int | None) -> str:
    return f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """For this process, and for good for those that it starts meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function: Any = None
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, or wants no more
        while True:
            given, item = unpacked(connection.recv())
            if item is None:
                function = given
                continue
            try:
                answer = (True, packed(function(*item)))
            except Exception as error:
                answer = (False, error)
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
