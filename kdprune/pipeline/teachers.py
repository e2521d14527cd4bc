"""Teachers: loaded where there are weights, trained where there are none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kdprune.checks import EMA
from kdprune.config import Config, TeacherConfig
from kdprune.data.dataset import Data
from kdprune.models.build import build_teacher, check_model_name, resolve_teacher
from kdprune.models.names import is_remote
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.given import is_given
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.session import Session

log = logging.getLogger("kdprune")

TEACHERS = "teachers"  # the folder of their runs in the output


@dataclass(frozen=True)
class TeacherRequest:
    """A teacher as it was asked for.

    Attributes:
        name: a model's, a run directory or RUN@EPOCH.
        checkpoint: a file with its weights.
        has_weights: whether there are any: pretrained, of the hub, of a run, of a file. Otherwise it is trained.
    """

    name: str
    checkpoint: str | None
    has_weights: bool


@dataclass
class LoadedTeacher:
    """A teacher with weights, not frozen yet.

    Attributes:
        source: where they come from.
        training: the summary of its training, where it was trained here.
    """

    built: BuiltModel
    source: str
    training: dict[str, Any] | None = None


class Trained(Protocol):
    """What came out of a training."""

    @property
    def path(self) -> Path: ...

    @property
    def summary(self) -> dict[str, Any]: ...


Train = Callable[[Config, Session, Path], Trained]
"""Trains a recipe into a folder of runs, or finds its run there."""


def requested_teachers(config: Config) -> list[TeacherRequest]:
    """The teachers of a run; none for the student's own moving average."""
    teacher = config.teacher
    if teacher.models == [EMA]:
        return []
    checkpoints: Sequence[str | None] = list(teacher.checkpoints) or [None] * len(teacher.models)
    return [
        TeacherRequest(name, file, bool(file) or teacher.pretrained or has_weights(name))
        for name, file in zip(teacher.models, checkpoints, strict=True)
    ]


def teacher_trainings(config: Config) -> list[tuple[Config, str]]:
    """Recipes of the teachers that are trained for a run, each with the folder of its run in the output."""
    requests = requested_teachers(config)
    return [(teacher_recipe(config, request.name), TEACHERS) for request in requests if not request.has_weights]


def has_weights(name: str) -> bool:
    """Whether the name alone stands for weights: a run, a hub's model, a module that was handed over."""
    return is_given(name) or is_remote(name) or resolve_teacher(name) is not None


def check_models(config: Config) -> None:
    """Refuse names of models that are not there."""
    if not is_given(config.student.model):
        check_model_name(config.student.model)
    for teacher in requested_teachers(config):
        if not is_given(teacher.name) and resolve_teacher(teacher.name) is None:
            check_model_name(teacher.name)


def given_teachers(config: Config, session: Session) -> list[BuiltModel | None]:
    """The teachers that have weights; None in the place of each that is to be trained."""
    requests = requested_teachers(config)
    if any(is_given(request.name) for request in requests):
        return [replace(built) for built in session.teachers]
    return [load_teacher(config, session.data, request) if request.has_weights else None for request in requests]


def load_teachers(
    config: Config, session: Session, train: Train, given: list[BuiltModel | None] | None = None
) -> list[LoadedTeacher]:
    """Load the teachers that have weights, then train those that have none.

    Args:
        given: what `given_teachers` gives, where it was asked before.
    """
    requests = requested_teachers(config)
    given = given_teachers(config, session) if given is None else given
    return [
        LoadedTeacher(built, request.name if request.name != built.name else "given weights")
        if built is not None
        else _trained(config, session, request, train)
        for request, built in zip(requests, given, strict=True)
    ]


def _trained(config: Config, session: Session, request: TeacherRequest, train: Train) -> LoadedTeacher:
    """A teacher that is trained here, or was by an earlier run that asked for the same."""
    recipe = teacher_recipe(config, request.name)
    log.info("teacher %s has no weights: it is trained on %s, or found", request.name, _share(config.teacher))
    result = train(recipe, session, Path(config.output) / TEACHERS)
    at = "" if config.teacher.snapshot is None else f"@{config.teacher.snapshot}"
    built = load_teacher(config, session.data, TeacherRequest(f"{result.path}{at}", None, True))
    return LoadedTeacher(built, str(result.path), result.summary)


def load_teacher(config: Config, data: Data, request: TeacherRequest, features_only: bool = False) -> BuiltModel:
    """A teacher that has weights; where its features are all that is asked for, one of any classes."""
    return build_teacher(
        request.name,
        None if features_only else data.num_classes,
        channels=data.channels,
        image_size=config.data.image_size or data.stored_size,
        mean=data.mean,
        std=data.std,
        checkpoint=request.checkpoint,
        pretrained=config.teacher.pretrained or is_remote(request.name),
        classes=data.classes,
    )


def _share(teacher: TeacherConfig) -> str:
    return "the full data" if teacher.train_fraction == 1 else f"{teacher.train_fraction:.0%} of the data"
