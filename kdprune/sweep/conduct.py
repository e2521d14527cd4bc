"""A sweep under way: what can be begun is begun; what fails is tried again or written down, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kdprune.config import Config
from kdprune.runs.reading import read_summary
from kdprune.sweep.graph import Graph, Node, without_needs
from kdprune.sweep.journal import Journal
from kdprune.sweep.plan import Plan
from kdprune.sweep.seal import Fingerprints, prints_of, seal_of
from kdprune.sweep.study import Settings, value_words, words
from kdprune.sweep.task import Event, Task, mark_attempt
from kdprune.sweep.tuning import Choice, choose, chosen
from kdprune.training.interrupt import Interrupted, StopRequest

LOOK_EVERY = 0.5  # seconds

LOGS = "logs"


class Launcher(Protocol):
    """Where tasks are done.

    Attributes:
        at_once: how many at a time.
        threads: of each process of one.
        free: how many more can be started.
        remembered: ids of tasks that another process, which is gone, has started, and that are still under way; they
            are started first, and found.
    """

    @property
    def at_once(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def free(self) -> int: ...

    @property
    def remembered(self) -> Collection[str]: ...

    def start(self, task: Task) -> None: ...

    def events(self, timeout: float) -> Sequence[Event]: ...

    def stop(self) -> None: ...


@dataclass
class Status:
    """How far a node is.

    Attributes:
        state: waiting, running, finished, failed, or lost where something failed that it needs.
        attempt: how often it was begun.
        details: see `Event`.
        begun: by `time.monotonic`.
        seconds: that it took.
    """

    node: Node
    state: str = "waiting"
    attempt: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    begun: float = 0.0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "failed", "lost")


class Sweep:
    """A plan, on its way.

    Args:
        folder: of the sweep: its journal and logs.
        retry: how often what failed is tried again.
        tell: is called with whatever changes its state, and with None twice a second.
    """

    def __init__(
        self, plan: Plan, folder: Path, retry: int = 0, tell: Callable[[Status | None], None] = lambda status: None
    ) -> None:
        self.plan, self.folder, self.retry, self.tell = plan, folder, retry, tell
        self.journal = Journal(folder)
        self._before = self.journal.seen_finished()
        self._prints = Fingerprints()
        self.graph: Graph = without_needs(plan.graph, self._before)
        self.status = {name: Status(node) for name, node in self.graph.nodes.items()}
        self.choices: dict[str, Choice] = {}

    def conduct(self, launcher: Launcher) -> None:
        """Make all that can be made.

        Raises:
            Interrupted: by a signal; all tasks have ended, with their state on disk.
        """
        try:
            self._conduct(launcher)
        finally:
            for status in self.status.values():
                if status.state == "running":  # an error ended this; the same command goes on with it
                    status.state = "waiting"

    def _conduct(self, launcher: Launcher) -> None:
        stopping = False
        with StopRequest() as stop:
            while True:
                if stop.signal and not stopping:
                    stopping = True
                    launcher.stop()  # once: a second signal would end a task without its checkpoint
                if not stopping:
                    self._begin(launcher)
                if not any(status.state == "running" for status in self.status.values()):
                    break
                for event in launcher.events(LOOK_EVERY):
                    self._hear(event, stopping)
                self.tell(None)
            if stop.signal:
                raise Interrupted(f"{stop.signal}: stopped; the same command goes on. {self.folder} holds the logs")

    def path(self, id: str) -> Path | None:
        """The directory of a run that is finished."""
        status = self.status[id]
        return Path(status.details["path"]) if status.state == "finished" else None

    def log(self, id: str) -> Path:
        """The file that all output goes to."""
        return self.folder / LOGS / f"{id}.log"

    def chosen(self) -> list[tuple[Settings, Choice]]:
        """The arms whose settings were chosen, by their coordinates."""
        found = {words(self.plan.arm_of[id].coordinates): id for id in self.choices}
        return [(self.plan.arm_of[id].coordinates, self.choices[id]) for id in found.values()]

    @property
    def complete(self) -> bool:
        """Whether all runs of the study are there; one that only tried a choice may have failed."""
        return all(self.status[id].state == "finished" for id, _ in self.plan.finals)

    @property
    def failed(self) -> list[Status]:
        """What could not be made."""
        return [status for status in self.status.values() if status.state in ("failed", "lost")]

    def _begin(self, launcher: Launcher) -> None:
        """Start what there is room for, and end what needs no start: what is lost, and what is there unchanged."""
        by_state: dict[str, set[str]] = {"waiting": set(), "running": set(), "finished": set(), "failed": set()}
        for name, status in self.status.items():
            by_state["failed" if status.state == "lost" else status.state].add(name)
        made, failed = by_state["finished"], by_state["failed"]
        begun = made | failed | by_state["running"]
        lost = self.graph.lost(failed, begun)
        for id, cause in lost.items():
            self._end(id, "lost", {"error": f"needs {self.status[cause].node.what}, which failed"})
        ended, remembered = bool(lost), launcher.remembered
        ready = self.graph.ready(made, made | failed, begun)
        for node in sorted(ready, key=lambda node: node.id not in remembered):
            if launcher.free <= 0 and node.id not in self._before:
                continue
            work = node.need or self._config(node.id)
            if work is None:
                self._end(node.id, "failed", {"error": self._why_no_choice(node.id)})
                ended = True
            elif isinstance(work, Config) and self._is_unchanged(node.id, work):
                ended = True
            elif launcher.free > 0:
                self._start(Task(node.id, work, self.log(node.id)), launcher)
        if ended:
            self._begin(launcher)

    def _start(self, task: Task, launcher: Launcher) -> None:
        status = self.status[task.id]
        status.state, status.attempt, status.begun = "running", status.attempt + 1, time.monotonic()
        if task.id not in launcher.remembered:  # else it goes on, and so does its log
            mark_attempt(task.log)
        launcher.start(task)
        self.tell(status)

    def _config(self, id: str) -> Config | None:
        """The settings of a run, with what was chosen for its arm; None where nothing could be chosen."""
        run = self.plan.runs[id]
        if id not in self.plan.arm_of:
            return run.config
        choice = self._choice(id)
        return None if choice is None else chosen(run, choice.values).config

    def _is_unchanged(self, id: str, config: Config) -> bool:
        """Whether a run was found finished before, and nothing has changed since; then it is, and is no task."""
        entry = self._before.pop(id, {})  # asked once: a run that has changed is a task
        prints = self._prints.of(config) if "seal" in entry else None
        if prints is None or seal_of(config, Path(entry["path"]), prints) != entry["seal"]:
            return False
        status = self.status[id]
        status.state, status.details = "finished", {"path": entry["path"]}
        self.tell(status)
        return True

    def _choice(self, id: str) -> Choice | None:
        """What is chosen for the arm of a final run."""
        arm = self.plan.arm_of[id]
        summaries: dict[str, Any] = {}
        for run in (run for trial in arm.trials for run in trial.runs):
            path = self.path(run.id)
            summaries[run.id] = None if path is None else read_summary(path)
        choice = choose(arm.trials, summaries)
        if choice is not None:
            self.choices[id] = choice
        return choice

    def _why_no_choice(self, id: str) -> str:
        """Why nothing could be chosen for the arm of a final run."""
        tried = [self.status[run.id] for trial in self.plan.arm_of[id].trials for run in trial.runs]
        failed = [status for status in tried if status.state != "finished"]
        tuned = ", ".join(self.plan.study.tuned)
        if not failed:
            return (
                f"tune: {tuned} cannot be chosen, since this data has no held-out part but the one that "
                "--data.val_fraction sets aside: what chose by it would be measured by it, too"
            )
        first = failed[0]
        error = str(first.details.get("error", first.state)).partition(". ")[0]  # all of it is said of that run
        return (
            f"tune: {tuned} cannot be chosen, since no value was tried to its end: {len(failed)} of {len(tried)} runs "
            f"failed, as {first.node.what} ({error}); its log is {self.log(first.node.id)}"
        )

    def _hear(self, event: Event, stopping: bool) -> None:
        status = self.status[event.id]
        if event.state == "running":
            status.details |= event.details
        elif event.state == "finished":
            self._end(event.id, "finished", event.details)
        elif stopping or status.attempt <= self.retry:
            status.seconds = time.monotonic() - status.begun
            # Of one that is stopped, only the seconds matter: the same command goes on with it.
            self._write(status, "stopped" if stopping else "failed", {} if stopping else event.details)
            status.state = "waiting"
        else:
            self._end(event.id, "failed", event.details)

    def _end(self, id: str, state: str, details: dict[str, Any]) -> None:
        status = self.status[id]
        status.state = state
        status.details |= details
        status.seconds = time.monotonic() - status.begun if status.begun else 0.0
        if state != "lost":
            self._write(status, state, details)
        self.tell(status)

    def _write(self, status: Status, state: str, details: dict[str, Any]) -> None:
        run = self.plan.runs.get(status.node.id)
        place = {} if run is None else {"coordinates": {n: value_words(v) for n, v in run.coordinates.items()}}
        choice = self.choices.get(status.node.id)
        tuned = {} if choice is None else {"tuned": choice.values, "curve": list(choice.curve)}
        tuned |= self._sealed(status.node.id) if run is not None and state == "finished" else {}
        entry = {"id": status.node.id, "what": status.node.what, **place, "state": state, "attempt": status.attempt}
        clock = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(status.seconds, 3)}
        self.journal.write({**entry, **clock, **tuned, **details})

    def _sealed(self, id: str) -> dict[str, str]:
        """By what a finished run is known as it is next time."""
        config, path = self._config(id), self.path(id)
        if config is None or path is None:
            return {}
        seal = seal_of(config, path, prints_of(read_summary(path)))
        return {} if seal is None else {"seal": seal}
