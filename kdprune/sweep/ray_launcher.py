"""Tasks on a Ray cluster (Moritz et al. 2018): each in a place that holds the CPUs and GPUs that a run asks for.

A place is an actor on some node, with a local launcher of one slot: it forks a process for each task, so that bits,
logs, signals and checkpoints are those of a sweep on one machine. A place goes on to the next task at once, with all
that is imported, or is given back to the cluster. All nodes need this package, and the same paths for all files.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdprune.messages import about, listed
from kdprune.runs.ray_cluster import check_installed, check_listening, connect
from kdprune.sweep.local import LocalLauncher
from kdprune.sweep.node import look
from kdprune.sweep.ray_room import Asked, asked, room
from kdprune.sweep.share import Share
from kdprune.sweep.task import Event, Task, end_of

log = logging.getLogger("kdprune")

ANSWERED = 300.0  # seconds for a node to start a process; a busy one takes its time
LOOK_EVERY = 1.0  # seconds that a place waits for something to happen
HEAD_EVERY = 5.0  # seconds between looks at the head node


class RayLauncher:
    """Runs tasks on a cluster. Use it as a context: it joins the cluster, and at the end leaves nothing there.

    Args:
        address: see `RayCluster`.
        jobs: at a time (default: as many as the cluster has room for).
        cpus: of a run (default: one for each process).
        gpus: of a run (default: one for each process, if the cluster has any).
        processes: of a run, on one node.
        runs_per_gpu: so many runs share a GPU.
        dataset: see `LocalLauncher`.

    Raises:
        ValueError: Ray is not installed, a number out of range; at the beginning of the context, no such cluster, or
            none of its nodes has what a run asks for.
        ConnectionError: from `events`, the head node is gone.
    """

    def __init__(
        self,
        address: str = "auto",
        jobs: int | None = None,
        *,
        cpus: int | None = None,
        gpus: int | None = None,
        processes: int = 1,
        runs_per_gpu: int | None = None,
        dataset: str = "",
    ) -> None:
        for option, number, least in (
            ("jobs", jobs, 1), ("cpus", cpus, 1), ("gpus", gpus, 0), ("processes", processes, 1),
            ("runs_per_gpu", runs_per_gpu, 1),
        ):  # fmt: skip
            if number is not None and number < least:
                raise ValueError(f"--{option}: {number} given, allowed is {least} or more")
        with about("--launcher"):
            check_installed()
        self.address, self.dataset, self._jobs = address, dataset, jobs
        self._numbers = cpus, gpus, processes, runs_per_gpu
        self._under_way: dict[Any, tuple[Any, Task]] = {}  # by the answer that is waited for
        self._idle: list[Any] = []
        self._head, self._seen_at = "", 0.0
        self._is_own = self._is_lost = False

    def __enter__(self) -> RayLauncher:
        import ray

        self._is_own = connect(self.address)
        self._head = ray.get_runtime_context().gcs_address
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.asked = asked(nodes, *self._numbers)
        if self._numbers[-1] is not None and not self.asked.gpus:
            log.warning("--runs_per_gpu has no effect: runs have no GPU here")
        self.at_once = self._jobs or room(nodes, self.asked)
        self._place = ray.remote(num_cpus=self.asked.cpus, num_gpus=self.asked.gpus, max_restarts=0)(_Place)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        if self._is_lost:  # to take leave of a head that is gone would take minutes, at the end of the process, too
            atexit.unregister(ray.shutdown)
            atexit.register(_leave)
            return
        for place, _ in self._under_way.values():
            ray.kill(place)  # its task notices, and ends with a checkpoint
        self._under_way = {}
        if self._is_own:
            ray.shutdown()

    @property
    def threads(self) -> int:
        """Of each process of a run."""
        return max(1, self.asked.cpus // self.asked.processes)

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        return self.at_once - len(self._under_way)

    @property
    def remembered(self) -> frozenset[str]:
        """Ids of tasks that have outlived another process: none here."""
        return frozenset()

    def check_shared(self, folder: Path) -> None:
        """Refuse a folder that the nodes do not all see.

        Raises:
            ValueError: naming it, and the nodes.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        folder.mkdir(parents=True, exist_ok=True)
        token, file = uuid.uuid4().hex, folder / f".shared-{uuid.uuid4().hex}.tmp"
        file.write_text(token)
        try:
            looked = ray.remote(num_cpus=0, max_retries=0)(look)
            answers = {
                f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})": looked.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(os.getcwd(), str(file), token, version("kdprune"))
                for node in ray.nodes()
                if node["Alive"]
            }
            until = time.monotonic() + ANSWERED
            problems = {name: _answer(one, until - time.monotonic()) for name, one in answers.items()}
        finally:
            file.unlink(missing_ok=True)
        refuse(folder, problems)

    def start(self, task: Task) -> None:
        """Begin a task, as soon as a node has room for it."""
        place: Any = self._idle.pop() if self._idle else self._place.remote(os.getcwd(), self.dataset, self.asked)
        place.start.remote(task)
        self._ask(place, task)

    def events(self, timeout: float) -> list[Event]:
        """What has happened since, waited for up to `timeout` seconds if nothing has."""
        import ray

        for place in self._idle:  # nothing was there for them to go on with
            ray.kill(place)
        self._idle = []
        self._look_at_head()
        answers = list(self._under_way)
        if not answers:
            return []
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=timeout)
        return [event for answer in ready for event in self._read(answer)]

    def stop(self) -> None:
        """Ask all tasks to end at the next step; they tell when they have."""
        import ray

        places = {place.is_there.remote(): place for place, _ in self._under_way.values()}
        begun, _ = ray.wait(list(places), num_returns=len(places), timeout=3 * LOOK_EVERY) if places else ([], [])
        for answer, place in places.items():
            if answer in begun:
                place.stop.remote()
            else:
                ray.kill(place)  # it waits for room, and has no task yet

    def _ask(self, place: Any, task: Task) -> None:
        self._under_way[place.events.remote(LOOK_EVERY)] = place, task

    def _read(self, answer: Any) -> list[Event]:
        import ray

        place, task = self._under_way.pop(answer)
        try:
            found: list[Event] = ray.get(answer)
        except ray.exceptions.RayError as error:
            what = f"its worker or node was lost ({_first_line(error)})"
            return [Event(task.id, "failed", {"error": what, "log": end_of(task.log)})]
        if any(event.state != "running" for event in found):
            self._idle.append(place)
        else:
            self._ask(place, task)
        return found

    def _look_at_head(self) -> None:
        if time.monotonic() - self._seen_at < HEAD_EVERY:
            return
        try:
            check_listening(self._head)
        except ConnectionError as error:
            self._is_lost = True
            raise ConnectionError(
                f"the head node of the Ray cluster, {self._head}, is gone ({error}); the runs end with a checkpoint, "
                "and the same command goes on, on this cluster or another"
            ) from None
        self._seen_at = time.monotonic()


def refuse(folder: Path, problems: Mapping[str, str]) -> None:
    """Refuse a folder with which nodes have problems.

    Args:
        problems: by the node; empty where there is none.

    Raises:
        ValueError: one has.
    """
    found = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if found:
        raise ValueError(
            f"--output: {folder} must be on storage that all nodes of the Ray cluster see under the same path, and is "
            f"not on {len(found)} of {len(problems)} ({listed(found, 3)})"
        )


class _Place:
    """Room for one task at a time on a node, as an actor. Its tasks end, with a checkpoint, when it is gone."""

    def __init__(self, folder: str, dataset: str, asked: Asked) -> None:
        import ray

        os.chdir(folder)  # settings may name files relative to it
        threads, gpus = max(1, asked.cpus // asked.processes), tuple(map(str, ray.get_gpu_ids()))
        self._launcher = LocalLauncher(dataset=dataset, slots=[Share(threads, asked.processes, gpus=gpus)])
        self._launcher.__enter__()

    def is_there(self) -> bool:
        return True

    def start(self, task: Task) -> None:
        self._launcher.start(task)

    def events(self, timeout: float) -> list[Event]:
        return self._launcher.events(timeout)

    def stop(self) -> None:
        self._launcher.stop()


def _leave() -> None:
    """End the process at once: Ray's own end crashes where there is no head any more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _answer(reference: Any, seconds: float) -> str:
    import ray

    try:
        return ray.get(reference, timeout=max(0.0, seconds))
    except ray.exceptions.GetTimeoutError:
        return f"it does not answer in {ANSWERED:g} seconds"
    except ray.exceptions.RayError as error:
        return f"kdprune cannot be used there, {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
