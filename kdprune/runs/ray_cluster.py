"""Tasks of a Ray cluster (Moritz et al. 2018) that call a function on items, as `map` does, results in their order."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from kdprune.runs.sent import packed, unpacked

AHEAD = 2  # tasks for each CPU that are running, wait, or are done before their turn
LOCAL = "local"
REACHED = 10.0  # seconds to a cluster's address


class RayCluster:
    """A mapper: `cluster(function, *iterables)` gives what `map` gives. Use it as a context.

    A function goes once into Ray's object store. Ray makes a task again, three times, if its worker or node dies. All
    nodes need this package, and the same paths for files that tasks read.

    Args:
        address: of a cluster, `auto` for the one that RAY_ADDRESS or this machine knows, or `local` for one of its own.
        at_once: tasks at a time (default: the cluster's CPUs).

    Raises:
        ValueError: Ray is not installed; on entering, there is no such cluster.
        ChildProcessError: from a call, a task could not be finished.
    """

    def __init__(self, address: str = "auto", at_once: int | None = None) -> None:
        check_installed()
        self.address, self.at_once = address, at_once
        self._connected = False

    def __enter__(self) -> RayCluster:
        if self.address != LOCAL:  # one that is not there is said before any work; its own starts when it is needed
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connected:
            import ray

            ray.shutdown()  # ends the tasks that are left, and a cluster of its own
            self._connected = False

    def __call__(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        import ray

        self._connect()
        task = ray.remote(num_cpus=1)(_call)
        name, shared = uuid.uuid4().hex, ray.put(packed(function))
        started = (task.remote(name, [shared], packed(item)) for item in zip(*iterables, strict=False))
        window = self.at_once or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = deque(islice(started, window))
        while waiting:
            yield unpacked(_result(waiting.popleft()))
            waiting.extend(islice(started, 1))

    def _connect(self) -> None:
        if connect(self.address, self.at_once):
            self._connected = True


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed: pip install 'kdprune[ray]', here and on all nodes")


def connect(address: str, cpus: int | None = None) -> bool:
    """Join a cluster, or start one; whether this was not done before.

    Args:
        address: see `RayCluster`.
        cpus: of a cluster of its own (default: those of this machine).

    Raises:
        ValueError: there is no such cluster.
    """
    import ray

    if ray.is_initialized():
        return False
    own: dict[str, Any] = {}
    if address == LOCAL:
        own = {"num_cpus": cpus, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody has agreed to send them
    try:
        check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"--ray_address: no Ray cluster at {address!r} ({error}): start one by `ray start --head`, name "
            "another, or take local"
        ) from None
    return True


def check_listening(address: str) -> None:
    """Ray itself looks for a cluster at HOST:PORT for minutes.

    Raises:
        ConnectionError: nobody is there, or answers in time.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), REACHED).close()
        except TimeoutError:
            raise ConnectionError(f"it does not answer in {REACHED:g} seconds") from None
        except (OSError, OverflowError) as error:
            raise ConnectionError(getattr(error, "strerror", None) or error) from None


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        reason = error.cause
        if not isinstance(reason, ray.exceptions.RayError):
            raise reason from None  # as it was raised
    except ray.exceptions.RayError as error:
        reason = error
    what = f"{type(reason).__name__}: {str(reason).splitlines()[0]}"
    raise ChildProcessError(
        f"a task of the Ray cluster could not be finished ({what}); all nodes need kdprune, and the record under the "
        "same path; if memory ran out, use fewer workers; what was finished is kept"
    )


_held: tuple[str, Any] = ("", None)  # the function of a worker's last task, which is most often that of the next one


def _call(name: str, shared: list[Any], item: tuple[Any, ...]) -> Any:
    """A task. The function comes in a list, as Ray would open it for each one otherwise."""
    import ray

    global _held
    torch.set_num_threads(1)
    if _held[0] != name:
        _held = (name, unpacked(ray.get(shared[0])))
    return packed(_held[1](*unpacked(item)))
