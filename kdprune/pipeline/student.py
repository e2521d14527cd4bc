"""The training of a student, put together from its job: order, distillation, observers, trainer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from kdprune.data.reader import plain_batches
from kdprune.data.split import Split
from kdprune.models.build import save_model
from kdprune.models.inputs import Inputs
from kdprune.models.mask_file import save_mask
from kdprune.models.spec import BuiltModel
from kdprune.models.weights import all_finite
from kdprune.passes.evaluation import batch_for, evaluate, same_buffers, student_logits
from kdprune.pipeline.distillation import distil
from kdprune.pipeline.dynamic import make_order
from kdprune.pipeline.job import Job
from kdprune.pipeline.masks import final_mask, make_sparse
from kdprune.pipeline.recorder import make_recorder
from kdprune.runs.accelerator import DTYPES
from kdprune.runs.run_dir import RunDir
from kdprune.teachers.targets import MeanTargets, OnlineTargets
from kdprune.teachers.teacher import is_convolutional
from kdprune.training.checkpoint import Checkpoints
from kdprune.training.observers import HeldOut, MovingAverage, Observer, Snapshots
from kdprune.training.state import TrainState
from kdprune.training.task import Task
from kdprune.training.trainer import Trainer


def train_student(
    job: Job, run: RunDir, targets: OnlineTargets | None, judges: np.ndarray | None = None, label: str | None = None
) -> TrainState:
    """Train a student to the end, or on to it, and write its weights.

    Args:
        targets: what it learns from; None for plain training.
        judges: training samples to evaluate on, in place of the held-out ones.
        label: what the log calls it.
    """
    config, accelerator = job.config, job.session.accelerator
    inputs = place(job.student, accelerator.device)
    training = config.train
    average = MovingAverage(job.student.model, training.ema, training.ema_warmup) if training.ema else None
    sparse = make_sparse(job, None if average is None else average.model)
    if isinstance(targets, MeanTargets):
        assert average is not None
        targets.follow(student_logits(average.model, inputs, accelerator))
    exported = job.student.model if average is None else average.model
    export = partial(_export, job, run, exported)
    reader = job.reader()
    observers: list[Observer] = [] if average is None else [average]
    observers += [*_evaluations(job, exported, inputs, judges)]
    observers.append(
        Snapshots(
            config.train.save_epochs,
            config.train.save_steps,
            lambda name, epoch: export(run.checkpoints / f"{name}.safetensors", epoch),
        )
    )
    recorder = make_recorder(job, run, student_logits(job.student.model, inputs, accelerator))
    if recorder is not None:
        observers.append(recorder)
    task = Task(
        label=label or f"{job.student.name}{'' if targets is None else ' + KD'}",
        student=job.student,
        inputs=inputs,
        reader=reader,
        order=make_order(config, job.session, job.subset, job.budget),
        budget=job.budget,
        settings=config.train,
        seed=config.seed_of("weights"),
        checkpoints=Checkpoints(run.checkpoints, run.artefact.key, config.train.checkpoint_keep),
        distillation=None if targets is None else distil(job, targets, inputs, reader),
        labelled=job.labelled,
        views=None if targets is None else config.teacher.views,
        observers=[*observers, *job.observers],
        report=run.write_metrics,
        first_step=config.student.rewind_to,
        sparse=sparse,
    )
    state = Trainer(task, accelerator).fit()
    if recorder is not None:
        recorder.close()
    if sparse is not None and accelerator.is_main_process:
        save_mask(run.path, final_mask(job, sparse))
    export(run.weights, job.budget.epochs)
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return state


def place(built: BuiltModel, device: torch.device) -> Inputs:
    """Put a model on its device, in the memory format that suits it; gives what makes its input of uint8 views."""
    channels_last = is_convolutional(built.model)
    built.model.to(device)
    if channels_last:
        built.model.to(memory_format=torch.channels_last)
    return Inputs(built.spec, device, channels_last)


def _evaluations(job: Job, model: nn.Module, inputs: Inputs, judges: np.ndarray | None) -> list[HeldOut]:
    """Evaluations on the validation part and on held-out samples, or on `judges` alone."""
    data, accelerator, spec = job.session.data, job.session.accelerator, job.student.spec
    batch_size = batch_for(model, spec.size_HW, accelerator.device, DTYPES[accelerator.mixed_precision])

    def accuracy(split: Split, ids: np.ndarray) -> dict[str, Any]:
        same_buffers(model, accelerator)
        logits = student_logits(model.eval(), inputs, accelerator)
        batches = plain_batches(split, ids, spec, job.session.place, batch_size)
        return evaluate(logits, batches, job.student.num_classes, accelerator)

    every = job.config.train.eval_every
    if judges is not None:
        return [HeldOut(partial(accuracy, data.train, judges), "test", every)]
    apart = len(data.validation) and not data.tests_by_validation
    parts = [HeldOut(partial(accuracy, data.train, data.validation), "val", every)] if apart else []
    return parts + (
        [] if data.test is None else [HeldOut(partial(accuracy, data.test, data.test.readable), "test", every)]
    )


def _export(job: Job, run: RunDir, model: nn.Module, path: Any, epoch: int | None) -> None:
    """Write the weights of a model under the student's name, on the main process."""
    if job.session.accelerator.is_main_process:
        if not all_finite(model):
            raise FloatingPointError(f"{path} is not written: the weights are not finite, the training has diverged")
        info = {**job.student.info, "epoch": epoch, "smoothing": job.config.train.smoothing}
        save_model(path, replace(job.student, model=model, info=info))
