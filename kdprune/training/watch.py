"""What must be known between two steps: is a checkpoint due, was a stop asked for, was every loss finite.

Each answer needs the device or the other processes to be waited for, so it is looked for every 20 steps only; one
process on a CPU has nobody to wait for and looks at every step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from kdprune.checks import checkpoint_interval
from kdprune.training.interrupt import StopRequest

LOOK_EVERY = 20  # steps
ELSEWHERE = "a signal to another process"


@dataclass(frozen=True)
class Findings:
    """What a look found; the same on all processes.

    Attributes:
        save: a checkpoint is due.
        stop: the signal that asked for a stop.
        not_finite: the first step whose loss was NaN or infinite.
    """

    save: bool = False
    stop: str | None = None
    not_finite: int | None = None


class Watch:
    """Watches over a run of at most `total` steps.

    Args:
        checkpoint_every: as in `--train.checkpoint_every`.
        steps_per_epoch: by which its epochs are counted.
    """

    def __init__(
        self, accelerator: Accelerator, total: int, checkpoint_every: str, steps_per_epoch: float, stop: StopRequest
    ) -> None:
        self.total, self.stop = total, stop
        self.alone = accelerator.num_processes == 1
        self.every = 1 if self.alone and accelerator.device.type == "cpu" else LOOK_EVERY
        epochs, minutes = checkpoint_interval(checkpoint_every)
        self.save_steps = None if epochs is None else max(1, round(epochs * steps_per_epoch))
        self.save_seconds = None if minutes is None else 60 * minutes
        self.device = accelerator.device
        self._losses: list[tuple[int, Tensor]] = []  # since the last look
        self.saved()

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._saved_at = time.monotonic()

    def note(self, loss: Tensor, step: int) -> None:
        """Remember a step's loss, on the device, for the next look."""
        self._losses.append((step, loss.detach()))

    def asked_to_stop(self) -> str | None:
        """The signal that asked one of the processes for a stop; all of them must call it at once."""
        if self.alone:
            return self.stop.signal
        asked = torch.tensor(int(self.stop.signal is not None), device=self.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return (self.stop.signal or ELSEWHERE) if asked else None

    def look(self, step: int, last: bool) -> Findings:
        """Look, if it is time to, after `step` steps, the last ones if `last`."""
        due_by_step = self.save_steps is not None and step % self.save_steps == 0
        late = self.save_seconds is not None and time.monotonic() - self._saved_at > self.save_seconds
        # Only what all processes see alike may bring them where they wait for each other.
        together = step % self.every == 0 or last or due_by_step
        if not together and not (self.alone and (late or self.stop.signal)):
            return Findings()
        save, stop, first = due_by_step or late, self.stop.signal, self._first_not_finite()
        if self.alone:
            return Findings(save, stop, first)
        early = 0 if first is None else self.total - first
        flags = torch.tensor([int(save), int(stop is not None), early], device=self.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        save, stopping, early = flags.tolist()
        stop = (stop or ELSEWHERE) if stopping else None
        return Findings(bool(save), stop, self.total - early if early else None)

    def _first_not_finite(self) -> int | None:
        """The first step since the last look whose loss was NaN or infinite; waits for the device."""
        noted, self._losses = self._losses, []
        if not noted:
            return None
        losses = torch.stack([loss for _, loss in noted]).tolist()
        return next((step for (step, _), loss in zip(noted, losses, strict=True) if not math.isfinite(loss)), None)
