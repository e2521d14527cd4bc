"""The settings of the runs that one `kdprune train` is made of, and their names."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from kdprune.checks import EMA
from kdprune.config import Config, DistillConfig, SubsetConfig, TeacherConfig, config_hash
from kdprune.losses.common.expression import parse as parse_loss
from kdprune.models.build import (
    check_model_name,
    resolve_teacher,
)


def teacher_config(config: Config, name: str) -> Config:
    """The recipe of a teacher that is trained here: the run's own, on the full data.

    Without a teacher, or of a born-again generation (Furlanello et al. 2018, arXiv 1805.04770) with the one before.
    """
    teacher = config.teacher
    new = without_teacher(config)
    new.name, new.seed = None, teacher.seed + teacher.generations - 1  # each generation begins anew
    new.subset = SubsetConfig(keep_fraction=teacher.train_fraction)
    new.student = type(config.student)(model=name, drop_rate=teacher.drop_rate)
    new.data.augment = teacher.augment or config.data.augment
    new.train.budget, new.train.save_epochs = "subset", list(teacher.save_epochs)
    if teacher.epochs is not None:
        new.train.epochs, new.train.steps = teacher.epochs, None
    if teacher.generations > 1:
        new.teacher = replace(
            teacher, models=[name], generations=teacher.generations - 1,
            # What is for several teachers; and a generation meets its teacher once, so a cache would save nothing.
            weights=None, temperatures=None, by_correctness=False, targets="online", views=None, cache=None, top_k=None,
        )  # fmt: skip
        new.distill = deepcopy(config.distill)
    if teacher.snapshot is not None and teacher.snapshot not in new.train.save_epochs:
        new.train.save_epochs = sorted([*new.train.save_epochs, teacher.snapshot])
    return new


def without_teacher(config: Config) -> Config:
    """The same student on the same subset, trained on hard labels alone."""
    new = deepcopy(config)
    new.name = f"{config.name}-no-kd" if config.name else None
    new.teacher, new.distill, new.baseline = TeacherConfig(), DistillConfig(), False
    return new


def run_name(config: Config) -> str:
    """The run's name, or one that says what it is and ends with a hash of its settings."""
    if config.name:
        return config.name
    kind = "kd" if config.teacher.models else "plain"
    keep = Path(config.subset.file).stem if config.subset.file else f"{config.subset.keep_fraction:g}"
    parts = [config.data.dataset.rstrip("/").split("/")[-1], config.student.model, f"f{keep}", kind, f"s{config.seed}"]
    return re.sub(r"[^\w.\-]+", "_", "-".join([*parts, config_hash(config)[:8]]))


def check_models(config: Config) -> None:
    check_model_name(config.student.model)
    for name in config.teacher.models:
        if name == EMA:
            continue
        if resolve_teacher(name) is None:
            check_model_name(name)
    parse_loss(config.distill.loss)
