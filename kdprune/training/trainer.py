"""The training of one model: resumable at every step, without the host waiting for the device inside one."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn
from tqdm import tqdm

from kdprune.data.counter import key
from kdprune.data.place import Place
from kdprune.data.reader import Batch, Request, plain_batches
from kdprune.data.stream import Stream, total_steps
from kdprune.models.build import save_model
from kdprune.models.inputs import Inputs
from kdprune.models.spec import Built
from kdprune.passes.evaluation import evaluate, student_logits
from kdprune.teachers.targets import MeanTargets
from kdprune.teachers.teacher import is_convolutional
from kdprune.training.checkpoint import Checkpoints
from kdprune.training.feature_losses import first_look
from kdprune.training.interrupt import Interrupted, StopRequest
from kdprune.training.metrics import line, means
from kdprune.training.optimizer import make_optimizer, make_scheduler
from kdprune.training.state import restore, state_of
from kdprune.training.step import MEASURED, DistillStep
from kdprune.training.task import Task
from kdprune.training.watch import Watch

log = logging.getLogger("kdprune")


class Trainer:
    """Trains one student; `fit` returns what is known of it at the end."""

    def __init__(self, task: Task, accelerator: Accelerator) -> None:
        self.task, self.accelerator = task, accelerator
        self.config = task.run.config.train
        device = accelerator.device
        self.labelled = bool((task.data.train.labels >= 0).all())
        self.total = total_steps(
            self.config.epochs, self.config.steps, self.config.budget,
            len(task.subset.ids), task.subset.total, self.config.batch_size,
        )  # fmt: skip
        self.stream = Stream(task.subset.ids, self.config.batch_size, task.run.config.seed)
        self.parts = accelerator.num_processes * self.config.grad_accum
        _check_batch(self.config.batch_size, accelerator.num_processes, self.config.grad_accum)
        if any(not 1 <= epoch <= self._epochs_in_all() for epoch in self.config.save_epochs):
            raise ValueError(
                f"{task.label}: save_epochs {self.config.save_epochs} given (a --teacher.snapshot is one of them), "
                f"allowed are 1 to {self._epochs_in_all()}"
            )

        self.model = task.built.model
        channels_last = is_convolutional(self.model)
        self.model.to(device)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.inputs = Inputs(task.built.spec, device, channels_last)
        self.ema = ModelEmaV3(self.model, decay=self.config.ema) if self.config.ema else None
        if isinstance(task.targets, MeanTargets):
            assert self.ema is not None
            task.targets.follow(student_logits(self.ema.module.eval(), self.inputs, accelerator))
        self.features = None
        if task.kd is not None:
            task.kd.to(device)
            self.features = first_look(task, self.inputs) if task.kd.needs_features else None
        self._prepare()
        self.checkpoints = Checkpoints(task.run.checkpoints, self.config.checkpoint_keep)
        self.step = 0
        self.sums = torch.zeros(len(MEASURED), device=device)  # of this epoch so far
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0  # in training steps
        self.epoch_seconds = 0.0

    def _prepare(self) -> None:
        kd = self.task.kd
        extra = list(kd.parameters()) if kd is not None else []
        optimizer = make_optimizer(self.config, self.model, extra)
        steps_per_epoch = self.total / self.config.epochs if self.config.steps is None else self._steps_per_epoch
        self.scheduler = make_scheduler(self.config, optimizer, self.total, steps_per_epoch)
        if self.config.compile:
            self.model.compile()
        prepare = self.accelerator.prepare
        self.prepared, self.optimizer = prepare(self.model, optimizer)
        self.step_loss = DistillStep(
            self.prepared, self.inputs, self.task.targets, prepare(kd) if extra else kd,
            self.config.smoothing, self.labelled, self.features,
        )  # fmt: skip

    @property
    def _steps_per_epoch(self) -> float:
        return len(self.task.subset.ids) / self.config.batch_size

    def fit(self) -> dict[str, Any]:
        """Train to the end, from the latest checkpoint if there is one.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
            FloatingPointError: the loss became NaN or infinite; the last good checkpoint is kept.
        """
        self._resume()
        batch_size = self.config.batch_size
        batches = iter(self.task.reader.read(self._requests()))
        epoch = self.stream.epoch_of(self.step)
        with StopRequest() as stop, self._bar() as bar:
            watch = self._watch(stop)
            self.prepared.train()
            self._clock = time.perf_counter()
            while self.step < self.total:
                try:
                    self._train_step(batches, watch)
                except (OSError, ValueError):  # a disk that is full, an image that cannot be read
                    self._rescue()
                    raise
                bar.update(batch_size)
                seen = watch.look(self.step)
                if seen.unfinite is not None:
                    self._refuse_unfinite(seen.unfinite)
                if self.step == self.total or self.step >= self.stream.epoch_end(epoch):
                    self._end_epoch(epoch)
                    epoch = self.stream.epoch_of(self.step)
                    self.prepared.train()
                if (seen.save or seen.stop) and self.step < self.total:
                    self._save()
                    watch.saved()
                if seen.stop and self.step < self.total:
                    self._stop(seen.stop)
        return self._finish()

    def _bar(self) -> tqdm:
        size, main = self.config.batch_size, self.accelerator.is_main_process
        return tqdm(
            total=self.total * size, initial=self.step * size, desc=self.task.label, unit="img", unit_scale=True,
            disable=None if main else True, smoothing=0.05, mininterval=0.5, leave=False,
        )  # fmt: skip

    def _watch(self, stop: StopRequest) -> Watch:
        return Watch(self.accelerator, self.total, self.config.checkpoint_every, self._steps_per_epoch, stop)

    def stepper(self) -> Callable[[], None]:
        """One training step a call, with nothing of what `fit` does between them, for benchmarks."""
        batches, watch = iter(self.task.reader.read(self._requests())), self._watch(StopRequest())
        self.prepared.train()

        def step() -> None:
            self._train_step(batches, watch)
            watch.look(self.step)

        return step

    def _train_step(self, batches: Iterator[Batch], watch: Watch) -> None:
        """One optimizer step; nothing in it waits for the device."""
        accum, step = self.config.grad_accum, self.step
        self.scheduler.step_update(step)
        seed = self.task.run.config.seed
        torch.manual_seed(key(seed, "dropout", step, self.accelerator.process_index))
        measured = torch.zeros_like(self.sums)
        for part in range(accum):
            waits = part < accum - 1
            with self.accelerator.no_sync(self.prepared) if waits else contextlib.nullcontext():
                result = self.step_loss(next(batches), self._alpha(step))
                self.accelerator.backward(result["loss"] / accum)
            measured += result["measured"]
            watch.note(result["loss"], step)
        if self.config.clip_grad is not None:
            trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            self.accelerator.clip_grad_norm_(trained, self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.sums += measured
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)

    def _alpha(self, step: int) -> float:
        policy = self.task.alpha
        return 0.0 if policy is None else policy.at(self.task.subset.keep_fraction, step / self.total)

    def _requests(self) -> Iterator[Request]:
        """This process's part of every batch that is left."""
        first = self.accelerator.process_index * self.config.grad_accum
        for step in range(self.step, self.total):
            for part in range(self.config.grad_accum):
                ids, epochs = self.stream.batch(step, first + part, self.parts)
                yield ids, epochs if self.task.views is None else epochs % self.task.views

    def _refuse_unfinite(self, step: int) -> None:
        paths = self.checkpoints.paths()
        raise FloatingPointError(
            f"{self.task.label}: the loss is not finite at step {step} of {self.total} (lr {self._lr():.3g}, precision "
            f"{self.accelerator.mixed_precision}). Try a smaller --train.lr, --train.warmup_epochs, "
            f"--train.clip_grad 1.0, or --train.precision no. "
            + (f"The last good checkpoint is {paths[-1]}." if paths else "No checkpoint was written yet.")
        )

    def _lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def _end_epoch(self, epoch: int) -> None:
        """Write a row of metrics; evaluate if it is time."""
        sums = self.accelerator.reduce(self.sums, "sum").tolist()
        self._tick()
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.step, "lr": self._lr()}
        row |= {"alpha": self._alpha(self.step - 1), **means(sums, self.task.targets is not None)}
        last = self.step == self.total
        if self.task.data.test is not None and (last or (epoch + 1) % self.config.eval_every == 0):
            result = self.evaluate()
            row |= {"test_top1": result["top1"], "test_loss": result["loss"]}
        row |= {"seconds": self.epoch_seconds, "images_per_second": sums[0] / self.epoch_seconds}
        self.history.append(row)
        if epoch + 1 in self.config.save_epochs and self.accelerator.is_main_process:
            self._export(self.task.run.checkpoints / f"epoch_{epoch + 1:04d}.safetensors", epoch + 1)
        self.sums.zero_()
        self.epoch_seconds = 0.0
        if self.task.targets is not None:
            self.task.targets.flush()
        if self.accelerator.is_main_process:
            self.task.run.write_metrics(self.history)
        self.accelerator.log({k: v for k, v in row.items() if v is not None}, step=self.step)
        log.info("%s", line(self.task.label, row, self._epochs_in_all()))
        self._clock = time.perf_counter()

    def _epochs_in_all(self) -> int:
        return -(-self.total * self.config.batch_size // len(self.task.subset.ids))

    def evaluate(self) -> dict[str, Any]:
        """Held-out accuracy of the student (of its moving average, if there is one)."""
        model = self._exported().eval()
        logits = student_logits(model, self.inputs, self.accelerator)
        data, ids = self.task.data, self.task.held_out
        split = data.test if ids is None else data.train
        assert split is not None
        place = Place.of(self.accelerator, data.workers)
        batches = plain_batches(split, split.readable if ids is None else ids, self.task.built.spec, place)
        return evaluate(logits, batches, self.task.built.num_classes, self.accelerator)

    def _exported(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module

    def _export(self, path: Any, epoch: int) -> None:
        info = {**self.task.built.info, "epoch": epoch, "smoothing": self.config.smoothing}
        built = Built(**{**vars(self.task.built), "model": self._exported(), "info": info})
        save_model(path, built)

    def _tick(self) -> None:
        """Add the time since the last look at the clock to the time spent training."""
        now = time.perf_counter()
        self.seconds += now - self._clock
        self.epoch_seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        """Write a checkpoint; every process takes part, the main one writes."""
        sums = self.accelerator.reduce(self.sums, "sum")
        self._tick()
        if self.task.targets is not None:
            self.task.targets.flush()
        if self.accelerator.is_main_process:
            self.checkpoints.save(self.step, state_of(self, sums))
        self._clock = time.perf_counter()

    def _rescue(self) -> None:
        """Keep what was done before a step failed. Other processes may have done that step, so it takes just one."""
        if self.step and self.accelerator.num_processes == 1:
            with contextlib.suppress(OSError, ValueError):  # the error that is under way tells more
                self._save()

    def _resume(self) -> None:
        state = self.checkpoints.latest()
        if state is not None:
            restore(self, state)

    def _stop(self, signal: str) -> None:
        where = f"stopped at step {self.step} of {self.total}; {self.checkpoints.folder} holds the state"
        raise Interrupted(f"{signal}: {where}. The same command goes on from there.")

    def _finish(self) -> dict[str, Any]:
        result = self.history[-1] if self.history else {}
        seen = self.total * self.config.batch_size
        if self.accelerator.is_main_process:
            self._export(self.task.run.weights, self._epochs_in_all())
        return {
            "test_top1": result.get("test_top1"),
            "test_loss": result.get("test_loss"),
            "epochs": seen / len(self.task.subset.ids),
            "steps": self.total,
            "images_seen": seen,
            "train_seconds": self.seconds,
            "images_per_second": seen / self.seconds,
        }


def _check_batch(batch_size: int, processes: int, accum: int) -> None:
    if batch_size % (processes * accum):
        raise ValueError(
            f"--train.batch_size: {batch_size} given, but it is the batch of all {processes} processes and "
            f"{accum} accumulation steps together, so it must be a multiple of {processes * accum}"
        )
