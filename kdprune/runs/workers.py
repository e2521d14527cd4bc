"""Who makes the calls into which a computation is cut: this process, others of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from kdprune.messages import about, unknown
from kdprune.runs.processes import Processes
from kdprune.runs.ray_cluster import RayCluster

LAUNCHERS = ("local", "ray")

Workers = contextlib.AbstractContextManager[Callable[..., Any]]


def launched(launcher: str = "local", workers: int | None = None, ray_address: str | None = None) -> Workers:
    """A context that gives a mapper, which has the same results for any number of workers. None is started yet.

    Args:
        launcher: `local`, or `ray`.
        workers: processes of one thread; None for `map` in this process, with its threads, or all CPUs of a cluster.
        ray_address: see `RayCluster`.

    Raises:
        ValueError: an unknown launcher, fewer than one worker, an address without Ray, or Ray is not installed.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(unknown("--launcher", launcher, LAUNCHERS))
    if workers is not None and workers < 1:
        raise ValueError(f"--workers: {workers} given, allowed is 1 or more")
    if launcher == "ray":
        with about("--launcher"):
            return RayCluster(ray_address or "auto", workers)
    if ray_address is not None:
        raise ValueError(f"--ray_address: {ray_address!r} given without --launcher ray")
    return contextlib.nullcontext(map) if workers is None else Processes(workers)
