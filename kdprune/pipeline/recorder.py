"""The recorder of a run's dynamics, where one is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from torch import Tensor

from kdprune.data.reader import Batch, plain_batches
from kdprune.data.stream import Stream
from kdprune.files import in_bytes
from kdprune.messages import counted
from kdprune.passes.evaluation import same_buffers
from kdprune.pipeline.job import Job
from kdprune.records.dynamics import About, DynamicsFiles
from kdprune.records.predictions import Predictions
from kdprune.runs.run_dir import RunDir
from kdprune.training.recorder import PlainImages, Recorder, TrainingViews

log = logging.getLogger("kdprune")


def make_recorder(job: Job, run: RunDir, logits_of: Callable[[Tensor], Tensor]) -> Recorder | None:
    """What records the dynamics of a run, as `--train.record` says; None where it says none.

    Args:
        logits_of: the student, from uint8 views to logits.

    Raises:
        OSError: no space for the record.
    """
    view, data, accelerator = job.config.train.record, job.session.data, job.session.accelerator
    if view == "none":
        return None
    epochs = recorded_epochs(job)
    if not epochs:
        log.info("%s: its training is no whole epoch, so that its dynamics are not recorded", job.student.name)
        return None
    ids = job.subset.ids if view == "training" else data.train.readable
    about = About(
        view, epochs, len(data.train), data.fingerprint, tuple(data.classes), len(ids), job.student.name
    )  # fmt: skip
    files = DynamicsFiles(run.dynamics, about)
    scratch = 4 * Predictions(files.folder, about.total, data.num_classes).bytes
    log.info(
        "%s: records %d statistics of %s in %s: %s, and while it trains %s more",
        *(job.student.name, len(about.statistics), counted(len(ids), "sample"), counted(epochs, "epoch")),
        *(in_bytes(about.bytes), in_bytes(scratch)),
    )
    common = (files, data.train.labels, data.num_classes, ids, accelerator)
    if view == "training":
        return TrainingViews(*common, epoch_steps=job.budget.kept / job.budget.batch_size)
    return PlainImages(*common, predict=partial(_predictions, job, ids, logits_of))


def recorded_epochs(job: Job) -> int:
    """How many epochs are recorded: of training views those that are completed, of plain images those at whose end the
    trainer looks around, the last one perhaps before it is complete."""
    budget = job.budget
    if job.config.train.record == "training":
        return budget.steps * budget.batch_size // budget.kept
    order = Stream(job.subset.ids, budget.batch_size, seed=0)
    ends = step = 0
    while step < budget.steps:
        step = min(budget.steps, order.epoch_end(order.epoch_of(step)))
        ends += 1
    return ends


def _predictions(job: Job, ids: np.ndarray, logits_of: Callable[[Tensor], Tensor]) -> Iterator[tuple[Batch, Tensor]]:
    same_buffers(job.student.model.eval(), job.session.accelerator)
    for batch in plain_batches(job.session.data.train, ids, job.student.spec, job.session.place):
        yield batch, logits_of(batch.images)
