"""The settings of the runs that one `kdprune train` is made of: teachers that are trained here, and the baseline."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

from kdprune.config import (
    Config,
    DistillConfig,
    RecordConfig,
    SeedConfig,
    StudentConfig,
    SubsetConfig,
    TeacherConfig,
    TrainConfig,
)
from kdprune.data import recipe


def teacher_recipe(config: Config, name: str) -> Config:
    """The recipe of a teacher that is trained here: the run's own, on the full data.

    Without a teacher, or of a born-again generation (Furlanello et al. 2018, arXiv 1805.04770) with the one before.
    """
    teacher = config.teacher
    new = without_teacher(config)
    new.name = None
    new.seed = config.seed_of("teacher") + teacher.generations - 1  # each generation begins anew
    new.seeds = SeedConfig(subset=config.seed_of("subset"), role="teacher")  # it must not see validation samples either
    new.subset, new.record = SubsetConfig(keep_fraction=teacher.train_fraction), RecordConfig()
    new.student = StudentConfig(model=name, drop_rate=teacher.drop_rate)
    new.data.augment = teacher.augment or config.data.augment
    new.train = teacher_training(config)
    if teacher.generations > 1:
        new.teacher = replace(
            deepcopy(teacher),
            models=[name],
            generations=teacher.generations - 1,
            # What is for several teachers; and a generation meets its teacher once, so a cache would save nothing.
            weights=None,
            temperatures=None,
            by_correctness=False,
            targets="online",
            views=None,
            cache=None,
            top_k=None,
        )
        new.distill = deepcopy(config.distill)
        new.seeds.teacher = config.seed_of("teacher")
    if teacher.snapshot is not None and teacher.snapshot not in new.train.save_epochs:
        new.train.save_epochs = sorted([*new.train.save_epochs, teacher.snapshot])
    return new


def teacher_training(config: Config) -> TrainConfig:
    """The run's training, with what `--teacher.train.*` says otherwise."""
    # Its dynamics cost next to nothing, and scorers ask for them, later or in another run.
    mixes = recipe.parse(config.teacher.augment or config.data.augment).mixes
    record: Any = "none" if mixes else "training"
    new = replace(config.train, budget="subset", save_epochs=[], save_steps=[], record=record)
    return overridden(new, config.teacher.train)


def overridden(train: TrainConfig, given: Any) -> TrainConfig:
    """A training with what `given`, a `TeacherTrainConfig`, says otherwise.

    What overrides a setting of the run (its steps, its base rate) must not override one that is given here.
    """
    values = {name: value for name, value in asdict(given).items() if value is not None}
    for overrides, setting in (("steps", "epochs"), ("lr_base", "lr")):
        if setting in values:
            values.setdefault(overrides, None)
    return replace(train, **deepcopy(values))


def check_optimizers(config: Config) -> None:
    """Refuse optimizers that cannot be: the student's, and those of teachers and proxies.

    Raises:
        ValueError: see `check_optimizer`.
    """
    from kdprune.training.optimizer import check_optimizer  # brings timm along, which a report does without

    check_optimizer(config.train)
    for group, given in (("teacher", config.teacher.train), ("record", config.record.train)):
        check_optimizer(overridden(config.train, given), "--train.opt" if given.opt is None else f"--{group}.train.opt")


def dense(student: StudentConfig) -> StudentConfig:
    """The same student with all of its weights."""
    names = ("sparsity", "pruner", "prune_at", "prune_scope", "prune_exclude", "pattern", "mask", "mask_check",
             "allow_collapse", "rewind_to")  # fmt: skip
    return replace(student, **{name: getattr(StudentConfig(), name) for name in names})


def without_teacher(config: Config) -> Config:
    """The same student on the same subset, trained on hard labels alone."""
    new = deepcopy(config)
    new.name = f"{config.name}-no-kd" if config.name else None
    new.teacher, new.distill, new.baseline = TeacherConfig(), DistillConfig(), False
    return new
