"""Trackers that were asked for with --log_with, each run under its own name."""

from __future__ import annotations

from accelerate import Accelerator

from kdprune.config import relevant
from kdprune.runs.run_dir import RunDir


def start_trackers(accelerator: Accelerator, run: RunDir) -> None:
    """Begin a run of each tracker."""
    accelerator.project_configuration.logging_dir = str(run.path / "tracker")
    settings = {k: v if isinstance(v, (int, float)) else str(v) for k, v in relevant(run.config).items()}
    accelerator.init_trackers("kdprune", settings, {"wandb": {"name": run.path.name}})


def stop_trackers(accelerator: Accelerator) -> None:
    """End them without ending the processes' group, as `Accelerator.end_training` would."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
