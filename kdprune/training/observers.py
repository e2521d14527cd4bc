"""What looks on while a model is trained: metrics, a moving average, snapshots, evaluation on held-out samples.

An observer changes nothing of the training. It sees each batch with its result, the end of each optimizer step and of
each epoch, and what it remembers travels in the checkpoints, so that a resumed run observes as if it had not stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from kdprune.data.reader import Batch
from kdprune.training.step import MEASURED, StepResult

log = logging.getLogger("kdprune")


class Observer:
    """Does nothing; a subclass overrides what it wants to see. All methods are called on every process."""

    def batch(self, batch: Batch, result: StepResult) -> None:
        """A part of an optimizer step was computed: all of it, or one of `--train.grad_accum`. Must not wait for the
        device."""

    def step(self, step: int) -> None:
        """`step` optimizer steps are done. Must not wait for the device."""

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        """Epochs have ended with the step that was done, several where a batch holds more than one.

        Args:
            ended: their numbers, from 1 on.
            last: whether the training has ended with them.

        Returns:
            Columns for their row of metrics.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What must not be lost when the run is stopped: tensors and plain values, since nothing that is loaded may run
        code. The main process's is written and given back to all, so what each saw of its own is gathered here."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Metrics(Observer):
    """Means over the samples of a row of metrics. They add up on the device and are fetched once a row.

    Args:
        with_teacher: whether there is a distillation loss to report.
    """

    def __init__(self, accelerator: Accelerator, with_teacher: bool) -> None:
        self.accelerator, self.with_teacher = accelerator, with_teacher
        self.sums = torch.zeros(len(MEASURED), device=accelerator.device)
        self._of_step = torch.zeros_like(self.sums)

    def batch(self, batch: Batch, result: StepResult) -> None:
        self._of_step += result.measured

    def step(self, step: int) -> None:
        self.sums += self._of_step
        self._of_step.zero_()

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        sums = self.accelerator.reduce(self.sums, "sum").tolist()
        self.sums.zero_()
        return {"samples": sums[0], **means(sums, self.with_teacher)}

    def state_dict(self) -> dict[str, Any]:
        # Of each process: added up here, they would be rounded otherwise than by a run that goes on to the epoch's end.
        return {"sums": self.accelerator.gather(self.sums[None])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        of_each = state["sums"].reshape(-1, len(MEASURED))
        if len(of_each) == self.accelerator.num_processes:
            self.sums.copy_(of_each[self.accelerator.process_index])
        elif self.accelerator.is_main_process:
            self.sums.copy_(of_each.sum(0))


def means(sums: list[float], with_teacher: bool) -> dict[str, float]:
    """Means over the samples, from the sums in the order of `MEASURED`."""
    mean = {name: total / sums[0] for name, total in zip(MEASURED[1:], sums[1:], strict=True)}
    row = {"train_loss": mean["loss"], "task_loss": mean["task_loss"], "train_top1": mean["correct"]}
    if with_teacher:
        row |= {name: mean[name] for name in ("kd_loss", "agreement", "teacher_entropy")}
    return row


MOSTLY_OLD = 0.05
"""Share of the first weights above which a moving average is warned of when a training ends."""


class MovingAverage(Observer):
    """Exponential moving average of a model's weights (timm's `ModelEmaV3`).

    With a warm-up, the decay of step s is min(decay, 1 - s^(-2/3)), which reaches 0.999 after 31,600 steps; without,
    the average of a short run is mostly what the weights were at its beginning. Either is a function of the step, so
    the averaged weights are all that a resumed run needs.

    Args:
        model: on its device, in its memory format.
        decay: of the average.
        warmup: whether the decay grows to that.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        self._model, self._steps = model, 0
        self._average = ModelEmaV3(model, decay=decay, use_warmup=warmup)

    @property
    def model(self) -> nn.Module:
        """The averaged model, in evaluation mode."""
        return self._average.module.eval()

    def step(self, step: int) -> None:
        self._average.update(self._model, step=step)
        self._steps = step

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        if last and (share := self.first_share()) > MOSTLY_OLD:
            log.warning(
                "--train.ema: %g given, and after %d steps the average still holds %.1f%% of the weights of the first "
                "one (the product of its decays), and it is what is evaluated and kept: take a smaller decay%s, or "
                "more steps",
                *(self._average.decay, self._steps, 100 * share),
                "" if self._average.use_warmup else ", --train.ema_warmup true",
            )
        return {}

    def first_share(self) -> float:
        """The part of the weights after the first step, which the first update copies, in the average."""
        share, step = 1.0, 2
        while step <= self._steps and share > MOSTLY_OLD:
            share *= self._average.get_decay(step)
            step += 1
        return share

    def state_dict(self) -> dict[str, Any]:
        return self._average.module.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average.module.load_state_dict(state)


class Snapshots(Observer):
    """Keeps the weights after some epochs and steps.

    Args:
        epochs, steps: after which.
        save: is given a name such as `epoch_0005` or `step_000000100`, and the epochs that are done, or None.
    """

    def __init__(
        self, epochs: Collection[int], steps: Collection[int], save: Callable[[str, int | None], None]
    ) -> None:
        self.epochs, self.steps, self.save = frozenset(epochs), frozenset(steps), save

    def step(self, step: int) -> None:
        if step in self.steps:
            self.save(f"step_{step:09d}", None)

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        for epoch in sorted(self.epochs.intersection(ended)):
            self.save(f"epoch_{epoch:04d}", epoch)
        return {}


class HeldOut(Observer):
    """Accuracy on samples that are not trained on.

    Args:
        evaluate: gives `top1` and `loss`.
        name: of the samples, the prefix of the columns ("test").
        every: epochs between evaluations; the last epoch is always evaluated.
    """

    def __init__(self, evaluate: Callable[[], dict[str, Any]], name: str, every: int) -> None:
        self.evaluate, self.name, self.every = evaluate, name, every

    def epoch(self, ended: range, last: bool) -> dict[str, Any]:
        if not last and all(epoch % self.every for epoch in ended):
            return {}
        result = self.evaluate()
        return {f"{self.name}_top1": result["top1"], f"{self.name}_loss": result["loss"]}
