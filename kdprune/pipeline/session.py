"""What all stages of one command share: the data and the processes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from kdprune.config import Config
from kdprune.data.dataset import Data, open_data
from kdprune.data.place import Place
from kdprune.data.split import Split
from kdprune.models.build import load_model, resolve_teacher

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Session:
    """The data, opened once, and the processes that work on it."""

    data: Data
    accelerator: Accelerator

    @property
    def place(self) -> Place:
        """Where this process reads, and which part."""
        return Place.of(self.accelerator, self.data.workers)


def open_session(config: Config, accelerator: Accelerator, data: Data | None = None) -> Session:
    """Open the data of a command, on the main process first.

    Args:
        data: opened already, in place of `config.data`.
    """
    if data is None:
        with accelerator.main_process_first():
            data = open_data(config.data, config.seed_of("subset"), progress=accelerator.is_main_process)
    if not data.num_classes:
        data.train.source.classes = classes_of_teacher(config)
    data = replace(data, train=_on_device(data.train, accelerator.device))
    log.info(
        "%s: %d training images of %d classes, %s, %s",
        config.data.dataset,
        len(data.train),
        data.num_classes,
        "no held-out images" if data.test is None else f"{len(data.test)} held out",
        "decoded by workers" if data.train.images is None else "decoded once",
    )
    return Session(data, accelerator)


def _on_device(split: Split, device: torch.device) -> Split:
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
        "name a teacher's run directory with --teacher.models"
    )
