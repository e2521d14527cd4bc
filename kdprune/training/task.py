"""A training that is to be done: everything that a trainer is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from kdprune.alpha import Alpha
from kdprune.data.dataset import Data
from kdprune.data.reader import Reader
from kdprune.data.subset import Subset
from kdprune.models.spec import Built
from kdprune.runs.run_dir import RunDir
from kdprune.training.step import Targets


@dataclass
class Task:
    """What is to be trained on what.

    Attributes:
        run: where it goes; its config says how.
        built: the student.
        reader: makes views.
        subset: the kept samples.
        targets, kd: teachers and distillation loss; None for plain training.
        alpha: weight of the distillation loss.
        views: number of different views of a sample; None: one for each epoch.
        label: what the progress bar and the log call it.
        held_out: sample ids of the training set to evaluate on, instead of the held-out split.
    """

    run: RunDir
    built: Built
    data: Data
    reader: Reader
    subset: Subset
    targets: Targets | None
    kd: nn.Module | None
    alpha: Alpha | None
    views: int | None
    label: str
    held_out: np.ndarray | None = None
