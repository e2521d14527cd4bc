"""How long a training takes, in steps, and the learning rate of each: timm's schedulers, and torch's one cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from kdprune.config import TrainConfig
from kdprune.data.stream import total_steps
from kdprune.training.optimizer import learning_rate

ONE_CYCLE = "onecycle"
RISE = 0.3
"""Of a one-cycle schedule, the part of its steps in which the rate grows, unless a warm-up says otherwise."""
FIRST = 1 / 25
"""Where its rate begins, in units of the peak."""


@dataclass(frozen=True)
class Budget:
    """The length of a training.

    Attributes:
        steps: in all.
        kept: samples of an epoch.
        batch_size: samples of a step.
        schedule_epoch: steps by which warm-up and milestones are counted: epochs of all the data under budget full.
        begun: epochs, where they do not all hold as many samples.
    """

    steps: int
    kept: int
    batch_size: int
    schedule_epoch: float
    begun: int | None = None

    @property
    def epoch(self) -> float:
        """Steps in which as many samples are seen as are kept."""
        return self.kept / self.batch_size

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return self.begun if self.begun is not None else -(-self.steps * self.batch_size // self.kept)


def make_budget(train: TrainConfig, kept: int, total: int) -> Budget:
    """The length of a training on `kept` of `total` samples."""
    steps = total_steps(train.epochs, train.steps, train.budget, kept, total, train.batch_size)
    counted = kept / train.batch_size if train.steps is not None else steps / train.epochs
    return Budget(steps, kept, train.batch_size, counted)


def make_scheduler(config: TrainConfig, optimizer: Optimizer, budget: Budget) -> Any:
    """timm's scheduler, or one cycle: a function of the step, so that a resumed run needs no state of it."""
    total, steps_per_epoch = budget.steps, budget.schedule_epoch
    if config.sched == ONE_CYCLE:
        return OneCycle(optimizer, total, rise_steps(config, budget), config.min_lr)
    constant = config.sched == "none"  # as milestones that never come, so that there is a warm-up
    warmup = round(config.warmup_epochs * steps_per_epoch)
    falls = config.sched in ("cosine", "poly")  # from where the warm-up ends, or the rate would drop there
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="multistep" if constant else config.sched,
        num_epochs=max(1, total - warmup) if falls else total,
        warmup_epochs=warmup,
        warmup_prefix=falls,
        warmup_lr=learning_rate(config) / 100,
        min_lr=config.min_lr,
        decay_milestones=[] if constant else [round(epoch * steps_per_epoch) for epoch in config.decay_milestones],
        decay_rate=config.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def one_cycle(step: float, total: int, rise: float, peak: float, last: float) -> float:
    """The learning rate of a step (Smith & Topin 2018, arXiv 1708.07120, as torch's `OneCycleLR` has it).

    Half a cosine from peak/25 up to the peak, which is reached at step `rise` - 1, and half a cosine down to `last` at
    the last step. Momentum stays as it is.

    Args:
        step: in [0, total); a fraction where an order of samples moves the schedule at its own pace.
    """
    top = max(0.0, rise - 1)
    if step < top:
        return _along_cosine(FIRST * peak, peak, step / top)
    fall = total - 1 - top  # none, where the peak is the last step or beyond it
    return _along_cosine(peak, last, min(1.0, (step - top) / fall) if fall > 0 else 0.0)


def _along_cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * part))


def rise_steps(config: TrainConfig, budget: Budget) -> float:
    """Steps of a warm-up: those that are given, or of a one-cycle schedule without any, 30% of all."""
    given = round(config.warmup_epochs * budget.schedule_epoch)
    return RISE * budget.steps if config.sched == ONE_CYCLE and not config.warmup_epochs else given


class OneCycle(Scheduler):
    """`one_cycle` for each group of parameters, in the form of timm's schedulers (which know the scales of layers)."""

    def __init__(self, optimizer: Optimizer, total: int, rise: float, last: float) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.total, self.rise, self.last = total, rise, last

    def _get_lr(self, t: float) -> list[float]:
        return [one_cycle(t, self.total, self.rise, peak, self.last) for peak in self.base_values]
