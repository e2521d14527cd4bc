"""Where a sweep's runs are started: the options of `kdprune sweep` about it, and the launcher that they mean. Nothing
heavy is imported before one is chosen."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from kdprune.config import Config
from kdprune.config.conditions import Condition, only
from kdprune.messages import about

if TYPE_CHECKING:
    from kdprune.sweep.conduct import Launcher
    from kdprune.sweep.study import Run

log = logging.getLogger("kdprune")

LAUNCHERS = ("local", "ray", "slurm")


def _of(*launchers: str) -> tuple[Condition, ...]:
    return (only(lambda o: o.launcher in launchers, "it is of --launcher " + " and ".join(launchers)),)


def _has_gpus(options: Any) -> bool:
    """Whether runs may have GPUs, as far as this machine knows: those of a cluster, the cluster tells."""
    from kdprune.sweep.share import gpus

    return options.launcher != "local" or bool(gpus())


_TUNED = only(lambda o: o.tune, "without --tune nothing is chosen")
# Under which options matter (see `cli.unused`).
UNUSED: dict[str, tuple[Condition, ...]] = {
    "tune_val_fraction": (
        _TUNED,
        only(lambda o: not o.data.val_fraction, "--data.val_fraction {data.val_fraction} is what judges"),
    ),
    "tune_seeds": (_TUNED,),
    "runs_per_gpu": (*_of("local", "ray"), only(_has_gpus, "this machine has no GPU")),
    "cpus": _of("ray", "slurm"),
    "gpus": _of("ray", "slurm"),
    "ray_address": _of("ray"),
    **{f"slurm_{name}": _of("slurm") for name in ("partition", "account", "time", "mem", "cluster")},
}


def add_launchers(parser: ArgumentParser) -> None:
    """Add the options that say where runs are started and what each of them has."""
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="local",
        help="Where runs are started: processes of this machine; a Ray cluster (pip install 'kdprune[ray]'); jobs of a "
        "Slurm cluster (pip install 'kdprune[slurm]').",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int,
        help="Runs at a time, each with its share of cores and GPUs (default: 1, or as many as --runs_per_gpu allows; "
        "of ray, as many as the cluster has room for; of slurm, 100 in the queue).",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=1, help="Processes of each run, as of accelerate launch; each has its own GPU."
    )
    parser.add_argument("--runs_per_gpu", type=int, help="Small runs that share a GPU (default: as --jobs comes out).")
    parser.add_argument("--cpus", type=int, help="CPUs of a run, on a cluster (default: of ray, one for each process).")
    parser.add_argument(
        "--gpus", type=int,
        help="GPUs of a run, on a cluster (default: of ray, one for each process, if it has any; of slurm, none).",
    )  # fmt: skip
    parser.add_argument(
        "--ray_address", type=str, help="Of the Ray cluster: auto (default), HOST:PORT, or local for one of its own."
    )
    parser.add_argument("--slurm_partition", type=str, help="Of the jobs (default: the cluster's).")
    parser.add_argument("--slurm_account", type=str, help="That pays (default: yours).")
    parser.add_argument(
        "--slurm_time", type=str, default="24:00:00",
        help="Limit of a job, as Slurm writes it. A run that reaches it goes on in another job.",
    )  # fmt: skip
    parser.add_argument("--slurm_mem", type=float, help="Memory of a job in GB (default: the cluster's).")
    parser.add_argument(
        "--slurm_cluster", choices=["slurm", "local"], default="slurm",
        help="local: submitit's own processes on this machine instead of jobs, to try it.",
    )  # fmt: skip


def launcher(options: Any, config: Config, folder: Path) -> contextlib.AbstractContextManager[Launcher]:
    """What starts the runs, as a context.

    Args:
        folder: of the sweep.

    Raises:
        ValueError: an extra that is not installed, or a number out of range.
    """
    if options.launcher == "local":
        from kdprune.sweep.local import LocalLauncher

        return LocalLauncher(options.jobs, config.data.dataset, options.processes, options.runs_per_gpu)
    if options.launcher == "ray":
        from kdprune.sweep.ray_launcher import RayLauncher

        return RayLauncher(
            options.ray_address or "auto", options.jobs, cpus=options.cpus, gpus=options.gpus,
            processes=options.processes, runs_per_gpu=options.runs_per_gpu, dataset=config.data.dataset,
        )  # fmt: skip
    from kdprune.sweep.slurm import Asked, SlurmLauncher

    asked = Asked(
        options.slurm_partition, options.slurm_account, options.slurm_time,
        cpus=options.cpus, gpus=options.gpus, mem=options.slurm_mem,
    )  # fmt: skip
    return SlurmLauncher(folder, asked, options.jobs, options.processes, options.slurm_cluster)


def warn_of_jobs(jobs: int | None) -> None:
    """Warn of more runs at a time on this machine than it has cores."""
    from kdprune.sweep.share import cores

    if (jobs or 1) > len(cores()):
        log.warning("--jobs: %d given, and there are %d cores", jobs, len(cores()))


def check_batches(runs: Sequence[Run], processes: int) -> None:
    """Refuse a batch that the processes of a run cannot share.

    Raises:
        ValueError: naming the run.
    """
    if processes > 1:
        from kdprune.sweep.study import words
        from kdprune.training.trainer import check_batch

        for run in runs:
            with about(words(run.coordinates)):
                check_batch(run.config.train, processes)


def check_place(launcher: Launcher, folder: Path) -> None:
    """Refuse a folder that the machines of a launcher do not all see.

    Raises:
        ValueError: see `RayLauncher.check_shared`.
    """
    check = getattr(launcher, "check_shared", None)
    if check is not None:
        check(folder)
