"""The training of one model: resumable at every step, without the host waiting for the device inside one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from kdprune import bars
from kdprune.data.counter import key
from kdprune.data.reader import Batch, Request
from kdprune.data.stream import Adaptive
from kdprune.training.interrupt import Interrupted, StopRequest
from kdprune.training.keeping import Keeper
from kdprune.training.observers import Metrics
from kdprune.training.optimizer import make_optimizer
from kdprune.training.schedule import make_scheduler
from kdprune.training.state import Stateful, TrainState
from kdprune.training.step import DistillStep
from kdprune.training.task import Task, check_batch
from kdprune.training.update import Update, seed_generators
from kdprune.training.watch import Watch

log = logging.getLogger("kdprune")


class Trainer:
    """Trains one student; `fit` goes to the end, `steps` lets the caller look on.

    Raises:
        ValueError: a batch size that the processes cannot share.
    """

    def __init__(self, task: Task, accelerator: Accelerator) -> None:
        self.task, self.accelerator, self.settings = task, accelerator, task.settings
        check_batch(self.settings, accelerator.num_processes)
        self.metrics = Metrics(accelerator, task.distillation is not None)
        self.observers = [self.metrics, *task.observers]
        self.adaptive = task.order if isinstance(task.order, Adaptive) else None
        self._prepare()
        self.state = TrainState(task.budget.steps, self._parts(), task.first_step)
        self.keeper = Keeper(task, self.state, accelerator, self._lr)
        self._count_steps()

    def _prepare(self) -> None:
        model, distillation = self.task.student.model, self.task.distillation
        extra = [] if distillation is None else list(distillation.loss.parameters())
        optimizer = make_optimizer(self.settings, model, extra)
        self.scheduler = make_scheduler(self.settings, optimizer, self.task.budget)
        if self.settings.compile:
            model.compile()
        prepare = self.accelerator.prepare
        self.prepared, self.optimizer = prepare(model, optimizer)
        self.update = Update(self.accelerator, self.optimizer)
        if distillation is not None and extra:
            distillation = replace(distillation, loss=prepare(distillation.loss))
        self.compute = DistillStep(
            self.prepared, self.task.inputs, distillation, self.settings.smoothing, self.task.labelled
        )

    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {"student": self.task.student.model, "optimizer": self.optimizer.optimizer}
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        if self.task.distillation is not None:
            parts |= {"loss": self.task.distillation.loss, "targets": self.task.distillation.targets}
        if self.adaptive is not None:
            parts["order"] = self.adaptive
        if self.task.sparse is not None:
            parts["mask"] = self.task.sparse
        return parts | {f"{type(observer).__name__} {i}": observer for i, observer in enumerate(self.observers)}

    def fit(self) -> TrainState:
        """Train to the end, from the latest checkpoint if there is one.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
            FloatingPointError: the loss became NaN or infinite; the last good checkpoint is kept.
            ValueError: the checkpoint belongs to another run.
        """
        stored = self.keeper.resume()
        self._count_steps()
        if stored is not None:
            if self.task.sparse is not None:  # that may be what failed, after its step was counted
                self.task.sparse.after_step(self.state.step, self.state.done)
            self.keeper.say_where(stored)
        state, batch_size = self.state, self.settings.batch_size
        with StopRequest() as stop, self._bar() as bar:
            for _ in self.steps(stop):
                bar.total = state.total * batch_size
                bar.update(batch_size)
        return state

    def steps(self, stop: StopRequest | None = None) -> Iterator[int]:
        """Train, and give the step that was just done; a caller that stops asking stops the training."""
        state, stop = self.state, stop or StopRequest()
        budget = self.task.budget
        watch = Watch(self.accelerator, budget.steps, self.settings.checkpoint_every, budget.epoch, stop)
        batches = self._batches()
        epoch = self.task.order.epoch_of(state.step)
        self.prepared.train()
        state.start_clock()
        while not state.done:
            try:
                self._train_step(batches, watch)
            except (OSError, ValueError):  # a disk that is full, an image that cannot be read
                self.keeper.rescue()
                raise
            found = watch.look(state.step, state.done)
            if found.not_finite is not None:
                self.keeper.refuse(f"the loss is not finite at step {found.not_finite}")
            if state.done or state.step >= self.task.order.epoch_end(epoch):
                # Those that were begun end with the training; before, one batch of few samples may end several.
                begun = max(epoch + 1, budget.epochs if state.done else self.task.order.epoch_of(state.step))
                self._end_epochs(range(epoch + 1, begun + 1))
                epoch = begun
                self.prepared.train()
            # What follows a training, such as the student's after its teacher's, would not stop for this signal.
            signal = watch.asked_to_stop() if state.done else found.stop
            if signal or (found.save and not state.done):
                self.keeper.save()
                watch.saved()
            if signal:
                self._stop(signal)
            self.keeper.note_progress()
            yield state.step

    def _train_step(self, batches: Iterator[Batch], watch: Watch) -> None:
        """One optimizer step; nothing in it waits for the device."""
        accum, step, sparse = self.settings.grad_accum, self.state.step, self.task.sparse
        self.scheduler.step_update(self._schedule(step))
        seed_generators(key(self.task.seed, "dropout", step, self.accelerator.process_index), self.accelerator.device)
        seen = []
        for part in range(accum):
            waits = part < accum - 1
            with self.accelerator.no_sync(self.prepared) if waits else contextlib.nullcontext():
                batch = next(batches)
                result = self.compute(batch, self._alpha(step))
                self.update.backward(result.loss / accum)
            watch.note(result.loss, step)
            seen.append((batch, result))
        if sparse is not None:
            sparse.mask_gradients()
        if self.settings.clip_grad is not None:
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            self.accelerator.clip_grad_norm_(trained, self.settings.clip_grad)
        self.update.step()
        if sparse is not None:
            sparse.mask_weights()
        self.state.step += 1
        for observer in self.observers:  # only now, so that a step that fails in its second part leaves no trace
            for batch, result in seen:
                observer.batch(batch, result)
            observer.step(self.state.step)
        if self.adaptive is not None:
            losses = [result.each for _, result in seen if result.each is not None]
            self.adaptive.observe(step, *self._place(), losses)
            self._count_steps()
        if sparse is not None:
            sparse.after_step(self.state.step, self.state.done)

    def _batches(self) -> Iterator[Batch]:
        """This process's part of every batch that is left.

        A reader asks ahead of the training. Of an order that goes by losses it is asked to read only what is decided,
        so the batches are the same however far ahead it reads.
        """
        step = self.state.step
        while step < self.state.total:
            end = self.state.total if self.adaptive is None else self.adaptive.decided
            assert end > step
            yield from self.task.reader.read(self._requests(step, end))
            step = end

    def _requests(self, begin: int, end: int) -> Iterator[Request]:
        order, (first, parts) = self.task.order, self._place()
        for step in range(begin, end):
            for part in range(first, first + self.settings.grad_accum):
                ids, epochs = order.batch(step, part, parts)
                views = epochs if self.task.views is None else epochs % self.task.views
                yield ids, views, order.weights(ids, epochs)

    def _place(self) -> tuple[int, int]:
        """The first of this process's parts of a batch, and in how many it is cut."""
        accum = self.settings.grad_accum
        return self.accelerator.process_index * accum, self.accelerator.num_processes * accum

    def _count_steps(self) -> None:
        """Learn from an order that decides step by step how many there will be."""
        if self.adaptive is not None:
            self.state.total = self.adaptive.steps

    def _schedule(self, step: int) -> float:
        """Where schedules stand, in steps of the budget."""
        return step if self.adaptive is None else self.adaptive.clock(step)

    def _alpha(self, step: int) -> float:
        distillation = self.task.distillation
        return 0.0 if distillation is None else distillation.alpha(self._schedule(step) / self.task.budget.steps)

    def _end_epochs(self, ended: range) -> None:
        """Ask the observers for a row of metrics, and report it under the number of the last epoch that has ended."""
        state, last = self.state, self.state.done
        self.keeper.refuse_weights_not_finite()
        measured = self.metrics.epoch(ended, last)
        state.tick()
        samples = round(measured.pop("samples"))
        row: dict[str, Any] = {"epoch": ended[-1], "step": state.step, "samples": samples, "lr": self._lr()}
        row |= {"alpha": self._alpha(state.step - 1), **measured}
        for observer in self.observers[1:]:
            row |= observer.epoch(ended, last)
        row |= {"seconds": state.epoch_seconds, "images_per_second": samples / state.epoch_seconds}
        state.history.append(row)
        state.epoch_seconds = 0.0
        try:
            if self.accelerator.is_main_process:
                self.task.report(state.history)
            self.accelerator.log({name: value for name, value in row.items() if value is not None}, step=state.step)
        except OSError:
            self.keeper.rescue()
            raise
        progress = {"label": self.task.label, "epochs": self.task.budget.epochs, **row}
        log.info("%s", epoch_line(self.task.label, row, self.task.budget.epochs), extra={"progress": progress})
        state.start_clock()

    def _lr(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)  # the head's, where layers differ

    def _stop(self, signal: str) -> None:
        where = f"stopped at step {self.state.step} of {self.state.total}; {self.task.checkpoints.folder} holds it"
        raise Interrupted(f"{signal}: {where}. The same command goes on from there.")

    def _bar(self) -> tqdm:
        size, main = self.settings.batch_size, self.accelerator.is_main_process
        return tqdm(
            total=self.state.total * size,
            initial=self.state.step * size,
            desc=self.task.label,
            unit="img",
            unit_scale=True,
            disable=None if main and bars.shown() else True,
            smoothing=0.05,
            mininterval=0.5,
            leave=False,
        )


def epoch_line(label: str, row: dict[str, Any], epochs: int) -> str:
    """An epoch's metrics as one line of the log."""
    parts = [f"{label}  epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.3f}"]
    if "kd_loss" in row:
        parts.append(f"kd {row['kd_loss']:.3f}  agreement {100 * row['agreement']:.1f}%")
    parts += [f"{name} {100 * row[f'{name}_top1']:.2f}%" for name in ("val", "test") if f"{name}_top1" in row]
    return "  ".join([*parts, f"{row['images_per_second']:,.0f} img/s"])
