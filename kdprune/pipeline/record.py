"""Records: what is observed of each sample, made once and found again.

A record of dynamics is a run that kept it; the others are artefacts in `<output>/records/`: embeddings, gradients, what
a teacher says, and memorization.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdprune.config import Config, RecordConfig, dotted
from kdprune.data.reader import Batch
from kdprune.models.build import load_model
from kdprune.models.gradient_norms import GradientNorms, last_layer_gradient_norm
from kdprune.models.gradient_norms.norms import cross_entropy
from kdprune.models.locate import resolve_teacher
from kdprune.models.names import is_remote
from kdprune.models.penultimate import Penultimate
from kdprune.models.spec import BuiltModel
from kdprune.passes.evaluation import student_logits
from kdprune.pipeline.job import make_student
from kdprune.pipeline.memorization import record_counts
from kdprune.pipeline.proxies import RECORDS, proxy_recipe, train_on_parts, train_proxies
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.row_record import record_rows, width_of
from kdprune.pipeline.session import Session
from kdprune.pipeline.student import place
from kdprune.pipeline.summary import NOTHING
from kdprune.pipeline.teachers import (
    TeacherRequest,
    Train,
    load_teacher,
    load_teachers,
    requested_teachers,
    teacher_trainings,
)
from kdprune.records.dynamics import FOLDER, Dynamics
from kdprune.records.dynamics import HEADER as DYNAMICS
from kdprune.records.rows import Column
from kdprune.records.statistics import STATISTICS, statistics
from kdprune.runs.run_dir import WEIGHTS, read_summary

log = logging.getLogger("kdprune")

OF_TEACHER = tuple(name for name in STATISTICS if name != "kl")


@dataclass(frozen=True)
class Recorded:
    """A record that is there.

    Attributes:
        folders: for `observe`: one, or those of several repeats.
        cost: of making it, whenever that was: seconds, forward and backward sample passes; nothing where it is a
            by-product.
    """

    folders: list[Path]
    cost: dict[str, float] = field(default_factory=lambda: dict(NOTHING))


def record(kind: str, config: Config, session: Session, train: Train) -> Recorded:
    """Record what scorers of a kind need, or find it.

    Args:
        kind: dynamics, embeddings, gradients, teacher or memorization.

    Raises:
        ValueError: what is asked for cannot be had from these settings.
    """
    if config.record.files:
        return Recorded([Path(file) for file in config.record.files])
    return KINDS[kind](config, session, train)


def record_dynamics(config: Config, session: Session, train: Train) -> Recorded:
    """Runs that recorded their dynamics: of the teachers that are trained here, or of proxies."""
    source, asked = config.record.source, _asked_of_proxies(config)
    if source == "teacher" or (source == "auto" and not asked):
        runs = _recorded_teachers(config, session, train)
        if runs:
            log.info(
                "observed are the training views of the teacher, %s; --record.source proxy trains a model for it",
                ", ".join(map(str, runs)),
            )
            return Recorded(runs)
        if source == "teacher":
            raise ValueError(
                "--record.source: teacher given, and no teacher is trained here on all samples with a record of its "
                "training views (--teacher.train_fraction 1, no mixed labels, at least one epoch, not finished before "
                "without a record); allowed is proxy"
            )
    runs = train_proxies(config, session, train)
    for run in runs:
        if not (run / FOLDER / DYNAMICS).is_file():
            raise ValueError(f"{run} is finished and holds no record: remove it, so that it is trained again")
    about = Dynamics(runs[:1]).about
    passes = about.observed * about.epochs * len(runs) if about.view == "plain" else 0
    return Recorded(runs, _cost(runs, forward=passes))


def observed_recipe(config: Config) -> Config:
    """The recipe of the training whose dynamics will be recorded, as far as it can be told beforehand."""
    teachers = [request.name for request in requested_teachers(config) if not request.has_weights]
    source, fits = config.record.source, config.teacher.train_fraction == 1
    if teachers and (source == "teacher" or (source == "auto" and fits and not _asked_of_proxies(config))):
        return teacher_recipe(config, teachers[0])
    return proxy_recipe(config, 0)


def trainings_of(kind: str, config: Config) -> list[tuple[Config, str]]:
    """Recipes of the trainings that a record needs, each with the folder of its run, as far as is known beforehand.

    Those for memorization are not: they see parts of data that is not open yet.
    """
    proxies = [(proxy_recipe(config, repeat), RECORDS) for repeat in range(config.record.repeats)]
    teachers = teacher_trainings(config)
    if kind == "dynamics":
        return teachers if observed_recipe(config).seeds.role == "teacher" else proxies
    if kind == "embeddings":
        if config.record.embeddings is not None:
            return []
        return teachers if requested_teachers(config) else proxies[:1]
    if kind == "teacher":
        return teachers
    return proxies if kind == "gradients" and config.record.epoch != 0 else []


def _asked_of_proxies(config: Config) -> list[str]:
    """Options that say how proxies are trained; where one is given, proxies are meant."""
    given, default = (dotted({"record": asdict(record)}) for record in (config.record, RecordConfig()))
    others = ("record.source", "record.files", "record.embeddings")
    return [f"--{name}" for name in given if given[name] != default[name] and name not in others]


def _recorded_teachers(config: Config, session: Session, train: Train) -> list[Path]:
    """Runs of teachers whose dynamics were recorded on all samples, where they are trained here anyway."""
    trained_here = [request for request in requested_teachers(config) if not request.has_weights]
    if not trained_here or config.teacher.train_fraction < 1:
        return []
    runs = [Path(teacher.source) for teacher in load_teachers(config, session, train) if teacher.training]
    return [run for run in runs if (run / FOLDER / DYNAMICS).is_file()]


def record_embeddings(config: Config, session: Session, train: Train) -> Recorded:
    """Pooled penultimate features, float16, of one model."""
    built = _embedder(config, session, train)
    _, tap, logits = _placed(built, session)

    def features(batch: Batch) -> Tensor:
        logits(batch.images)
        return tap.taken().float()

    width = width_of(features, session, built)
    folder = record_rows("embeddings", {"features": Column(width, "float16")}, [built], features, config, session)
    return Recorded([folder], _cost(forward=len(session.data.train)))


def record_teacher(config: Config, session: Session, train: Train) -> Recorded:
    """Everything that a forward pass of a teacher gives: statistics of its predictions, the norm of the last layer's
    gradient, features. Of several teachers it is a record each, over which scores are averaged."""
    if not requested_teachers(config):
        raise ValueError("--teacher.models: no teacher given, and what a teacher says of each sample is to be recorded")
    loaded = load_teachers(config, session, train)
    folders = list(dict.fromkeys(_of_teacher(replace(one.built), config, session) for one in loaded))
    return Recorded(folders, _cost(forward=len(folders) * len(session.data.train)))


def _of_teacher(built: BuiltModel, config: Config, session: Session) -> Path:
    _, tap, logits = _placed(built, session)
    bias = tap.classifier.bias is not None

    def row(batch: Batch) -> Tensor:
        z_NC, features_NH = logits(batch.images).float(), tap.taken().float()
        of_prediction_SN = statistics(z_NC, batch.labels)[: len(OF_TEACHER)]
        norm_N = last_layer_gradient_norm(z_NC, features_NH, batch.labels.clamp(min=0), bias)
        norm_N = norm_N.masked_fill(batch.labels < 0, torch.nan)
        return torch.cat([of_prediction_SN.T, norm_N[:, None], features_NH], dim=1)

    width = width_of(row, session, built) - len(OF_TEACHER) - 1
    columns = {name: Column(0) for name in (*OF_TEACHER, "last_layer_gradient_norm")}
    folder = record_rows("teacher", {**columns, "features": Column(width, "float16")}, [built], row, config, session)
    tap.close()
    built.model.to("cpu")  # one teacher on the device at a time
    return folder


def record_gradients(config: Config, session: Session, train: Train) -> Recorded:
    """Norms of each sample's gradient, over all parameters and over the last layer's, of R proxies."""
    if (session.data.train.labels < 0).any():
        raise ValueError(f"{config.data.dataset} has samples without a label: their loss has no gradient")
    runs, models = _proxies_at(config, session, train)
    taken = [_gradient_norms(built, session) for built in models]

    def row(batch: Batch) -> Tensor:
        both_2RN = torch.stack([norms(batch) for norms in taken], dim=1)
        return both_2RN.flatten(0, 1).T

    columns = {"gradient_norm": Column(len(models)), "last_layer_gradient_norm": Column(len(models))}
    folder = record_rows("gradients", columns, models, row, config, session, {"epoch": config.record.epoch})
    passes = len(models) * len(session.data.train)
    return Recorded([folder], _cost(runs, forward=passes, backward=passes))


def _proxies_at(config: Config, session: Session, train: Train) -> tuple[list[Path], list[BuiltModel]]:
    """Runs of proxies, and their models after --record.epoch epochs."""
    epoch = config.record.epoch
    if epoch == 0:
        log.warning(
            "--record.epoch: 0 given; GraNd at initialisation does not find important samples (its published result "
            "came from a mistake in restoring checkpoints): take 10 to 20"
        )
        recipes = [proxy_recipe(config, repeat) for repeat in range(config.record.repeats)]
        return [], [make_student(recipe, session) for recipe in recipes]
    at = "" if epoch is None else f"@{epoch}"
    runs = train_proxies(config, session, train)
    weights = [resolve_teacher(f"{run}{at}") for run in runs]
    return runs, [_loaded(path, session) for path in weights if path is not None]


def record_memorization(config: Config, session: Session, train: Train) -> Recorded:
    """Whether each of M models that saw a part of the data is right about each sample, and whether it saw it."""
    repeats, fraction = config.record.repeats, config.record.train_fraction
    if repeats < 4:
        raise ValueError(
            f"--record.repeats: {repeats} given, and memorization compares models that saw a sample with models that "
            "did not: allowed are 4 and more (Feldman & Zhang 2020 took 2,000 for ImageNet, 4,000 for CIFAR-100)"
        )
    log.info("memorization: %d trainings on %.0f%% of the data each, or found", repeats, 100 * fraction)
    runs = train_on_parts(config, session, train)
    folder = record_counts(runs, partial(_loaded, session=session), config, session)
    return Recorded([folder], _cost(runs, forward=len(runs) * len(session.data.train)))


KINDS: dict[str, Callable[[Config, Session, Train], Recorded]] = {
    "dynamics": record_dynamics,
    "embeddings": record_embeddings,
    "gradients": record_gradients,
    "teacher": record_teacher,
    "memorization": record_memorization,
}


def _embedder(config: Config, session: Session, train: Train) -> BuiltModel:
    """The model whose features are recorded: as named, else the teacher, else a proxy."""
    name = config.record.embeddings
    if name is not None:
        has_weights = is_remote(name) or resolve_teacher(name) is not None
        settings = replace(config, teacher=replace(config.teacher, pretrained=not has_weights))
        return load_teacher(settings, session.data, TeacherRequest(name, None, True), features_only=True)
    if requested_teachers(config):
        loaded = load_teachers(config, session, train)
        if len(loaded) > 1:
            log.warning(
                "--record.embeddings: not given, so they are of the first of %d teachers, %s",
                *(len(loaded), loaded[0].built.name),
            )
        return replace(loaded[0].built)
    (run,) = train_proxies(replace(config, record=replace(config.record, repeats=1)), session, train)
    return _loaded(run / WEIGHTS, session)


def _loaded(weights: Path, session: Session) -> BuiltModel:
    return load_model(weights, None if session.student is None else deepcopy(session.student.model))


def _cost(runs: Sequence[Path] = (), forward: int = 0, backward: int = 0) -> dict[str, float]:
    """Of trainings, and of passes beside them."""
    trained = [read_summary(run)["cost"]["student_training"] for run in runs]
    cost = {name: sum(one[name] for one in trained) for name in NOTHING}
    cost["forward_samples"] += forward
    cost["backward_samples"] += backward
    return cost


def _placed(built: BuiltModel, session: Session) -> tuple[Any, Penultimate, Any]:
    """A model on its device, with a tap on its features: inputs, tap, from uint8 views to logits."""
    inputs = place(built, session.accelerator.device)
    tap = Penultimate(built.model.eval())
    return inputs, tap, student_logits(built.model, inputs, session.accelerator)


def _gradient_norms(built: BuiltModel, session: Session) -> Callable[[Batch], Tensor]:
    """From a batch to both norms, 2×N."""
    inputs, tap, _ = _placed(built, session)
    seen: list[tuple[Tensor, Tensor]] = []  # logits and features of the batch's forward pass

    def loss(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
        seen.append((logits_NC.detach(), tap.taken()))
        return cross_entropy(logits_NC, labels_N)

    norms = GradientNorms(built.model, loss)

    def both(batch: Batch) -> Tensor:
        seen.clear()
        with session.accelerator.autocast():
            of_all_N = norms(inputs(batch.images), batch.labels)
        logits_NC, features_NH = seen[0]  # what comes after it are single samples, to prove the norms
        of_last_N = last_layer_gradient_norm(logits_NC, features_NH, batch.labels, tap.classifier.bias is not None)
        return torch.stack([of_all_N.float(), of_last_N.float()])

    return both
