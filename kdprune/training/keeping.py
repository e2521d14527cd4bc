"""What a training leaves on disk while it goes on, and how it goes on from there: checkpoints, and how far it came."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator

from kdprune.models.weights import all_finite
from kdprune.training.progress import Progress
from kdprune.training.state import TrainState
from kdprune.training.task import Task

log = logging.getLogger("kdprune")


class Keeper:
    """Writes the state of a training, and reads it again.

    Args:
        lr: the learning rate as it is now, for messages.
    """

    def __init__(self, task: Task, state: TrainState, accelerator: Accelerator, lr: Callable[[], float]) -> None:
        self.task, self.state, self.accelerator, self.lr = task, state, accelerator, lr
        self.progress = Progress(task.checkpoints.folder)

    def save(self) -> None:
        """Write a checkpoint; every process takes part, the main one writes.

        Raises:
            FloatingPointError: the weights are not finite.
        """
        self.state.tick()
        self.refuse_weights_not_finite()
        state = {**self.state.state_dict(), "processes": self.accelerator.num_processes}
        if self.accelerator.is_main_process:
            self.task.checkpoints.save(self.state.step, state)
        self.accelerator.wait_for_everyone()  # whoever ended first would have its launcher end the one that writes
        self.state.start_clock()

    def rescue(self) -> None:
        """Keep what was done before a step failed. Other processes may have done that step, so it takes just one."""
        if self.state.step > self.state.first and self.accelerator.num_processes == 1:
            with contextlib.suppress(OSError, ValueError, FloatingPointError):  # the error that is under way tells more
                self.save()

    def note_progress(self) -> None:
        """Now and then, write how far the training is, for the count of what a kill loses."""
        if self.accelerator.is_main_process and self.progress.due():
            self.state.tick()
            distillation, state = self.task.distillation, self.state
            asked = 0 if distillation is None else distillation.targets.forward_samples
            self.progress.write(state.step + state.lost_steps, state.seconds + state.lost_seconds, asked)

    def resume(self) -> dict[str, Any] | None:
        """Take up the latest checkpoint, if there is one, and count what was lost after it.

        Returns:
            the checkpoint, for `say_where`.

        Raises:
            ValueError: it is of another run.
            FloatingPointError: its weights are not finite.
        """
        stored = self.task.checkpoints.latest()
        if stored is not None:
            self._load(stored)
        if spent := self.progress.read():
            self.state.count_lost(spent["steps"], spent["seconds"])
            if self.task.distillation is not None:
                self.task.distillation.targets.count_lost(spent["teacher_forward_samples"])
        return stored

    def _load(self, stored: dict[str, Any]) -> None:
        try:
            self.state.load_state_dict(stored)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of many modules
            raise ValueError(f"{stored['path']} does not hold the state of this run ({error}): remove it") from error
        if not all_finite(self.task.student.model):
            raise FloatingPointError(
                f"{stored['path']} holds weights that are not finite: remove it, to go on from the one before"
            )

    def say_where(self, stored: dict[str, Any]) -> None:
        """Report and log where the training goes on."""
        if self.state.history and self.accelerator.is_main_process:
            self.task.report(self.state.history)  # the disk may have been full
        label, processes = self.task.label, self.accelerator.num_processes
        log.info("%s: goes on at step %d of %d", label, self.state.step, self.state.total)
        if stored.get("processes", processes) != processes:
            log.warning(
                "%s: the checkpoint was written by %d processes and %d go on: the result will be equal up to rounding "
                "(and BatchNorm sees other local batches), not bit for bit",
                *(label, stored["processes"], processes),
            )

    def refuse_weights_not_finite(self) -> None:
        """Raise where the weights are not finite any more."""
        if not all_finite(self.task.student.model):
            self.refuse(f"the weights are not finite after step {self.state.step}")

    def refuse(self, what: str) -> None:
        """Raise FloatingPointError: what is not finite, what may help, what is kept."""
        paths = self.task.checkpoints.paths()
        raise FloatingPointError(
            f"{self.task.label}: {what} of {self.state.total} (lr {self.lr():.3g}, precision "
            f"{self.accelerator.mixed_precision}). Try a smaller --train.lr, --train.warmup_epochs, "
            f"--train.clip_grad 1.0, or --train.precision no. "
            + (f"The last good checkpoint is {paths[-1]}." if paths else "No checkpoint was written yet.")
        )
