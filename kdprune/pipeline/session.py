"""What all stages of one command share: the data and the processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from kdprune import bars
from kdprune.config import Config
from kdprune.data.dataset import Data, data_of, open_data
from kdprune.data.place import Place
from kdprune.data.scores import Hard, Scores
from kdprune.data.size import size_of
from kdprune.data.split import Split
from kdprune.models.build import load_model, resolve_teacher
from kdprune.models.own import of_module
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.models.weights import check_finite
from kdprune.pipeline.given import NOTHING_GIVEN, Given, is_given
from kdprune.records.rows import RowRecord

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Session:
    """The data, opened once, and the processes that work on it.

    Attributes:
        student, teachers: modules that the caller handed over, to be copied by whoever changes them.
        scores, features: by which a subset is selected, where a selector asks for them.
        observation: what these cost to record: seconds, forward and backward sample passes.
    """

    data: Data
    accelerator: Accelerator
    student: BuiltModel | None = None
    teachers: tuple[BuiltModel, ...] = ()
    scores: Scores | None = None
    features: RowRecord | None = None
    observation: Mapping[str, float] | None = None

    def difficulty(self, hard: Hard | None = None) -> np.ndarray | None:
        """The scores, turned so that higher is harder, float32 N; None without.

        Args:
            hard: which scores mean a hard sample, if it is not what they say themselves.
        """
        if self.scores is None:
            return None
        return replace(self.scores, hard=hard or self.scores.hard).difficulty

    @property
    def place(self) -> Place:
        """Where this process reads, and which part."""
        return Place.of(self.accelerator, self.data.workers)


def open_session(
    config: Config, accelerator: Accelerator, given: Given = NOTHING_GIVEN, needs_classes: bool = True
) -> Session:
    """Open the data of a command, on the main process first, and try the modules that it was given.

    Args:
        needs_classes: whether anything will be predicted; if not, data may have no classes at all.

    Raises:
        ValueError: data that cannot be opened; modules that do not fit it.
    """
    if given.data is None and is_given(config.data.dataset):
        raise ValueError(f"{config.data.dataset} was handed over in Python: hand it over again, with data=…")
    with accelerator.main_process_first():
        data = open_given(config, given.data, progress=accelerator.is_main_process and bars.shown())
    if not data.num_classes and needs_classes:
        data.train.source.classes = classes_of_teacher(config)
    data = replace(data, train=on_device(data.train, accelerator.device))
    log.info(
        "%s: %d training images of %d classes, %s, %s",
        config.data.dataset,
        len(data.train),
        data.num_classes,
        "no held-out images" if data.test is None else f"{len(data.test)} held out",
        "decoded by workers" if data.train.images is None else "decoded once",
    )
    student = None if given.student is None else _of_module(given.student, "student", config, data)
    return Session(
        data, accelerator, student, tuple(_of_module(module, "teacher", config, data) for module in given.teachers)
    )


def open_given(config: Config, given: tuple[Any, Any] | None, progress: bool = False) -> Data:
    """The training and the held-out part that were handed over, or what the settings name."""
    if given is None:
        return open_data(config.data, config.seed_of("subset"), progress)
    return data_of(*given, config.data, config.seed_of("subset"), progress)


def _of_module(module: Any, whose: str, config: Config, data: Data) -> BuiltModel:
    size = config.data.image_size or data.stored_size
    if size is None:
        raise ValueError(
            f"--data.image_size: not given, and neither the {whose} {type(module).__name__} nor the images, which "
            "are of several sizes or larger than --data.memory_gb, say what size the module takes"
        )
    spec = InputSpec(data.channels, size_of(size), data.mean, data.std)
    built = of_module(module, whose, data.num_classes, spec, data.classes)
    check_finite(module, f"the weights of the {whose} {type(module).__name__}")
    return built


def on_device(split: Split, device: torch.device) -> Split:
    """The decoded images on the accelerator if they take no more than a quarter of its free memory."""
    if split.images is None or device.type != "cuda":
        return split
    free, _ = torch.cuda.mem_get_info(device)
    return replace(split, images=split.images.to(device)) if split.images.numel() <= free / 4 else split


def classes_of_teacher(config: Config) -> list[str]:
    """The classes of data that names none, an unlabelled folder without a held-out part: those of a teacher's run."""
    for name in config.teacher.models:
        path = resolve_teacher(name)
        if path is not None:
            built = load_model(path)
            return built.classes or [str(i) for i in range(built.num_classes)]
    raise ValueError(
        f"{config.data.dataset} has no labels and no held-out part, so its classes are not known: "
        "name a teacher's run directory with --teacher.models, or hand over data with an attribute `classes`"
    )
