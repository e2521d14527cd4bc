"""Trackers that were asked for with --log_with, each run under its own name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from accelerate import Accelerator

from kdprune.config import relevant
from kdprune.files import FULL, NoSpace, no_space
from kdprune.runs.run_dir import RunDir


@contextlib.contextmanager
def tracked(accelerator: Accelerator, run: RunDir) -> Iterator[None]:
    """Have each tracker follow what is trained meanwhile.

    Raises:
        NoSpace: for what a tracker writes; everything else that is written here raises it by itself.
    """
    try:
        _start(accelerator, run)
        yield
        _stop(accelerator)
    except OSError as error:
        if error.errno not in FULL or isinstance(error, NoSpace):
            raise
        raise no_space(error, run.path / "tracker") from error


def _start(accelerator: Accelerator, run: RunDir) -> None:
    accelerator.project_configuration.logging_dir = str(run.path / "tracker")
    settings = {k: v if isinstance(v, (int, float)) else str(v) for k, v in relevant(run.config).items()}
    accelerator.init_trackers("kdprune", settings, {"wandb": {"name": run.path.name}})


def _stop(accelerator: Accelerator) -> None:
    """End them without ending the processes' group, as `Accelerator.end_training` would."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
