"""Tasks as jobs of a Slurm cluster, through submitit.

A job runs a task as a command (see `apart`) and says by files what becomes of it, so that a sweep that was killed finds
its jobs again: `jobs/ID.job.json` in its folder holds the number of each job until its end has been told. A job that is
about to reach its time limit, or to be preempted, lets the run write a checkpoint and is queued again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kdprune.files import write_json, write_text
from kdprune.messages import unknown
from kdprune.outside import TEXT, check_fields, read_json
from kdprune.sweep.apart import Files, Follower
from kdprune.sweep.job import Job, stop_file
from kdprune.sweep.task import Event, Task, end_of

FOLDER, ENDING = "jobs", ".job.json"
CLUSTERS = ("slurm", "local")
AT_ONCE = 100  # jobs in the queue
DONE_EVERY = 2.0  # seconds between questions whether a job has ended
REQUEUED = 1000  # times that a job may reach its time limit
GONE = ("UNKNOWN", "NO PROCESS AND NO RESULT")  # what submitit says of a job that nobody remembers

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Asked:
    """What each job asks for; what is None is the cluster's default.

    Attributes:
        time: limit, as Slurm writes it: MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS, …
        cpus, gpus: of all processes of a run together.
        mem: in GB.
    """

    partition: str | None = None
    account: str | None = None
    time: str = "24:00:00"
    cpus: int | None = None
    gpus: int | None = None
    mem: float | None = None

    def parameters(self) -> dict[str, Any]:
        """As submitit names them.

        Raises:
            ValueError: a number out of range, or a time that is none.
        """
        for option, number, least in (("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if number is not None and number < least:
                raise ValueError(f"--{option}: {number} given, allowed is {least} or more")
        if self.mem is not None and not (math.isfinite(self.mem) and self.mem > 0):
            raise ValueError(f"--slurm_mem: {self.mem} given, allowed are GB above 0")
        given = {
            "slurm_partition": self.partition, "slurm_account": self.account, "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus, "mem_gb": self.mem, "timeout_min": minutes(self.time),
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class Submitted:
    """A job that is under way.

    Attributes:
        job: submitit's.
        end: what its task came to, once it has said so; a job that is queued again goes on after that.
    """

    task: Task
    job: Any
    follower: Follower
    end: Event | None = None
    asked_at: float = field(default=-math.inf)


class SlurmLauncher:
    """Runs tasks as jobs. Use it as a context; jobs that are under way outlive it, unless they are told to stop.

    Args:
        folder: of the sweep, on storage that all nodes see.
        asked: by each job.
        jobs: in the queue at a time.
        processes: of a run, on one node.
        cluster: slurm; or local, processes of this machine instead of jobs, to try it.

    Raises:
        ValueError: submitit is not installed, no such cluster, a number out of range.
    """

    def __init__(
        self, folder: Path, asked: Asked, jobs: int | None = None, processes: int = 1, cluster: str = "slurm"
    ) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ValueError("--launcher: submitit is not installed: pip install 'kdprune[slurm]'")
        if cluster not in CLUSTERS:
            raise ValueError(unknown("--slurm_cluster", cluster, CLUSTERS))
        for option, number in (("jobs", jobs), ("processes", processes)):
            if number is not None and number < 1:
                raise ValueError(f"--{option}: {number} given, allowed is 1 or more")
        self.folder, self.asked, self.at_once = folder.absolute() / FOLDER, asked, jobs or AT_ONCE
        self.processes, self.cluster = processes, cluster
        self._parameters = asked.parameters()
        self._known: dict[str, Any] = {}
        self._under_way: dict[str, Submitted] = {}
        self._told: list[Event] = []

    def __enter__(self) -> SlurmLauncher:
        import submitit

        try:
            self._executor = submitit.AutoExecutor(
                self.folder / "%j", cluster=self.cluster,
                slurm_max_num_timeout=REQUEUED, local_max_num_timeout=REQUEUED,
            )  # fmt: skip
        except RuntimeError as error:
            raise ValueError(f"--launcher: there is no Slurm here ({error})") from None
        self._job_class: Any = submitit.SlurmJob if self.cluster == "slurm" else submitit.LocalJob
        self._executor.update_parameters(name="kdprune", **self._parameters)
        self._known = dict(self._find())
        return self

    def __exit__(self, *error: object) -> None:
        """Jobs that were not told to stop go on."""

    @property
    def threads(self) -> int:
        """Of each process of a run."""
        return max(1, (self.asked.cpus or 1) // self.processes)

    @property
    def free(self) -> int:
        """How many more jobs can be queued."""
        return self.at_once - len(self._under_way)

    @property
    def remembered(self) -> set[str]:
        """Ids of tasks whose jobs were queued by a sweep that is gone, and that have an end to tell, or will have."""
        return set(self._known)

    def start(self, task: Task) -> None:
        """Queue a job, or find that of an earlier sweep."""
        files = Files(self.folder / task.id)
        job = self._known.pop(task.id, None)
        if job is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write(task)
            stop_file(files.place).unlink(missing_ok=True)
            job = self._executor.submit(Job(files.place, task.log.absolute(), self.processes))
            write_json(_job_file(files.place), {"job": job.job_id, "cluster": self.cluster})
        else:
            log.info("%s: job %s is found again", task.id, job.job_id)
        self._under_way[task.id] = Submitted(task, job, Follower(files))

    def events(self, timeout: float) -> list[Event]:
        """What has happened since, waited for up to `timeout` seconds if nothing has."""
        found = self._look()
        if not found:
            time.sleep(timeout)
            found = self._look()
        return found

    def stop(self) -> None:
        """Ask all jobs to end at the next step; they tell when they have. Those that only wait leave the queue."""
        for id, one in list(self._under_way.items()):
            write_text(stop_file(self.folder / id), "stop")
            if one.job.state.upper() == "PENDING":
                one.job.cancel(check=False)
                self._told.append(Event(id, "failed", {"error": "it was interrupted before it began"}))
                self._forget(id)

    def _look(self) -> list[Event]:
        found, self._told = self._told, []
        for id, one in list(self._under_way.items()):
            done = self._is_done(one)  # before its last words are read
            for event in one.follower.events():
                one.end = None if event.state == "running" else event
                found += [event] if event.state == "running" else []
            if done:
                found.append(one.end or Event(id, "failed", self._without_an_end(one)))
                self._forget(id)
        return found

    def _is_done(self, one: Submitted) -> bool:
        """Whether its job has ended. A cluster is not asked for each look."""
        if one.end is None and time.monotonic() - one.asked_at < DONE_EVERY:
            return False
        one.asked_at = time.monotonic()
        return not self._is_alive(one.job)

    def _is_alive(self, job: Any) -> bool:
        if self.cluster == "local":  # of those that another process has started submitit knows nothing
            return _is_process(job.job_id, str(self.folder))
        return not job.done()

    def _without_an_end(self, one: Submitted) -> dict[str, str]:
        said = end_of(one.job.paths.stderr)
        return {"error": f"its job {one.job.job_id} ended ({one.job.state})", "log": end_of(one.task.log) or said}

    def _forget(self, id: str) -> None:
        del self._under_way[id]
        _job_file(self.folder / id).unlink(missing_ok=True)

    def _find(self) -> Any:
        """Jobs of earlier sweeps that are under way, or have finished meanwhile, by the ids of their tasks."""
        for file in sorted(self.folder.glob(f"*{ENDING}")):
            id = file.name.removesuffix(ENDING)
            with contextlib.suppress(ValueError, OSError):
                content = check_fields(read_json(file), {"job": TEXT, "cluster": TEXT}, str(file))
                if content["cluster"] != self.cluster:
                    continue
                job = self._job_class(folder=self.folder / "%j", job_id=content["job"])
                ends = [event.state for event in Follower(Files(self.folder / id)).events()]
                there = self._is_alive(job) and (self.cluster == "local" or job.state.upper() not in GONE)
                if there or ends[-1:] == ["finished"]:
                    yield id, job


def minutes(text: str) -> int:
    """A time limit of Slurm's in minutes, at least one.

    Raises:
        ValueError: it is none.
    """
    days, dash, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if re.fullmatch(r"\d*", days) and bool(days) == bool(dash) and len(parts) <= 3 and all(map(str.isdecimal, parts)):
        numbers = list(map(int, parts))
        # With days, the first is hours; without, a single one or the first of two is minutes.
        numbers = numbers if dash or len(numbers) == 3 else [0, *numbers]
        hours, mins, seconds = (*numbers, 0, 0)[:3]
        total = int(days or 0) * 1440 + hours * 60 + mins + math.ceil(seconds / 60)
        if total > 0:
            return total
    raise ValueError(
        f"--slurm_time: {text!r} given, allowed are MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS or DAYS-HOURS:MINUTES"
    )


def _job_file(place: Path) -> Path:
    return place.with_name(f"{place.name}{ENDING}")


def _is_process(number: str, word: str) -> bool:
    """Whether a process is there, and is the one that has a word in its command line."""
    try:
        process = psutil.Process(int(number))
        return process.status() != psutil.STATUS_ZOMBIE and any(word in part for part in process.cmdline())
    except (psutil.Error, ValueError):
        return False
