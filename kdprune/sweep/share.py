"""What of a machine each of the runs has that are under way on it: cores, GPUs, processes, threads. Pure.

Legend: a *slot* is a place for one run at a time; a *group* is the GPUs that one run computes on, one a process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """What the runs of one slot have.

    Attributes:
        threads: of each process.
        processes: of a run.
        cores: to which it is pinned; none for all.
        gpus: that it sees; None for all, which on a machine without any is none.
    """

    threads: int
    processes: int = 1
    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] | None = None

    def environment(self) -> dict[str, str]:
        """Of the process of a run."""
        found = {"OMP_NUM_THREADS": str(self.threads)}
        return found if self.gpus is None else {**found, "CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


def shares(
    jobs: int | None,
    cores: Sequence[int],
    gpus: Sequence[str] = (),
    processes: int = 1,
    runs_per_gpu: int | None = None,
    threads: int | None = None,
) -> list[Share]:
    """The slots of a machine. GPUs are dealt out in turn, so that none has two runs before each has one.

    Args:
        jobs: runs at a time (default: as many as `runs_per_gpu` allows; else one).
        cores: of the machine, by number.
        gpus: of the machine, as CUDA_VISIBLE_DEVICES names them.
        processes: of a run, each with a GPU of its own where there are any.
        runs_per_gpu: at most so many runs share GPUs (default: as many as `jobs` brings there).
        threads: of each process (default: its part of the cores).

    Raises:
        ValueError: a number below one, or fewer GPUs than a run has processes.
    """
    for option, number in (("--jobs", jobs), ("--processes", processes), ("--runs_per_gpu", runs_per_gpu)):
        if number is not None and number < 1:
            raise ValueError(f"{option}: {number} given, allowed is 1 or more")
    if gpus and processes > len(gpus):
        raise ValueError(f"--processes: {processes} given, allowed are up to {len(gpus)}, one for each GPU")
    groups = [tuple(gpus[i * processes : (i + 1) * processes]) for i in range(len(gpus) // processes)]
    room = len(groups) * runs_per_gpu if groups and runs_per_gpu else None
    slots = min(jobs or room or 1, room or jobs or 1)
    return [
        Share(
            threads=threads or max(1, len(cores) // slots // processes),
            processes=processes,
            cores=_cores_of(slot, slots, cores),
            gpus=groups[slot % len(groups)] if groups else None,
        )
        for slot in range(slots)
    ]


def cores() -> list[int]:
    """Of this machine, that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads_given() -> int | None:
    """What OMP_NUM_THREADS says."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else None


def gpus() -> list[str]:
    """Of this machine, that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()  # makes no context, so a fork of this process may still use them
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return [name.strip() for name in named][:count]


def _cores_of(slot: int, slots: int, cores: Sequence[int]) -> tuple[int, ...]:
    """Neighbours, which share caches; nothing where runs cannot have at least one each."""
    if slots == 1 or slots > len(cores):
        return ()
    return tuple(cores[slot * len(cores) // slots : (slot + 1) * len(cores) // slots])
