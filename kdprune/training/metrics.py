"""What is reported of a training: a row an epoch, a line for the eye, and trackers."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from kdprune.config import relevant
from kdprune.runs.run_dir import RunDir
from kdprune.training.step import MEASURED


def means(sums: list[float], with_teacher: bool) -> dict[str, float]:
    """Means over the samples of an epoch, from the sums that the steps measured."""
    mean = {name: total / sums[0] for name, total in zip(MEASURED[1:], sums[1:], strict=True)}
    row = {"train_loss": mean["loss"], "task_loss": mean["task_loss"], "train_top1": mean["correct"]}
    if with_teacher:
        row |= {name: mean[name] for name in ("kd_loss", "agreement", "teacher_entropy")}
    return row


def line(label: str, row: dict[str, Any], epochs: int) -> str:
    """A row for the eye."""
    parts = [f"{label}  epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.3f}"]
    if "kd_loss" in row:
        parts.append(f"kd {row['kd_loss']:.3f}  agreement {100 * row['agreement']:.1f}%")
    if "test_top1" in row:
        parts.append(f"top-1 {100 * row['test_top1']:.2f}%")
    return "  ".join([*parts, f"{row['images_per_second']:,.0f} img/s"])


def start_trackers(accelerator: Accelerator, run: RunDir) -> None:
    """Trackers that were asked for with --log_with, each run under its own name."""
    accelerator.project_configuration.logging_dir = str(run.path / "tracker")
    settings = {k: v if isinstance(v, (int, float)) else str(v) for k, v in relevant(run.config).items()}
    accelerator.init_trackers("kdprune", settings, {"wandb": {"name": run.path.name}})


def stop_trackers(accelerator: Accelerator) -> None:
    """End them without ending the processes' group, as `Accelerator.end_training` would."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
