"""What a trainer is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdprune.config import TrainConfig
from kdprune.data.reader import Reader
from kdprune.data.stream import Order
from kdprune.models.inputs import Inputs
from kdprune.models.spec import BuiltModel
from kdprune.training.checkpoint import Checkpoints
from kdprune.training.observers import Observer
from kdprune.training.schedule import Budget
from kdprune.training.sparse import Sparse
from kdprune.training.step import Distillation


@dataclass
class Task:
    """What is to be trained on what.

    Attributes:
        label: what the progress bar and the log call it.
        student: on its device, in its memory format.
        inputs: from uint8 views to the student's input.
        reader: answers requests for views.
        order: which samples each step takes.
        budget: how long.
        settings: of the optimisation.
        seed: of dropout.
        checkpoints: where the state goes.
        distillation: None for plain training.
        labelled: whether the data has labels.
        views: number of different views of a sample; None: one for each epoch.
        observers: who looks on, in this order.
        report: is given all rows of metrics after each epoch, on the main process.
        first_step: of the schedule and of the order, at which the training begins.
        sparse: what keeps pruned weights at zero; None for a dense student.
    """

    label: str
    student: BuiltModel
    inputs: Inputs
    reader: Reader
    order: Order
    budget: Budget
    settings: TrainConfig
    seed: int
    checkpoints: Checkpoints
    distillation: Distillation | None = None
    labelled: bool = True
    views: int | None = None
    observers: Sequence[Observer] = ()
    report: Callable[[list[dict[str, Any]]], None] = field(default=lambda history: None)
    first_step: int = 0
    sparse: Sparse | None = None


def check_batch(settings: TrainConfig, processes: int) -> None:
    """Refuse a batch that cannot be cut into equal parts."""
    parts = processes * settings.grad_accum
    if settings.batch_size % parts:
        raise ValueError(
            f"--train.batch_size: {settings.batch_size} given, but it is the batch of all {processes} processes and "
            f"{settings.grad_accum} accumulation steps together, so it must be a multiple of {parts}"
        )
