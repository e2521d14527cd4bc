"""Weights of an ensemble's teachers, learned on training samples that none of them was trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdprune.config import Config
from kdprune.data.dataset import Data
from kdprune.data.reader import Batch
from kdprune.data.subset import load_subset
from kdprune.models.locate import resolve_teacher, run_of
from kdprune.passes.predict import predict
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.samples import choose_subset
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import TeacherRequest, requested_teachers
from kdprune.runs.reading import SUMMARY, read_summary
from kdprune.teachers.ensemble import max_likelihood_weights
from kdprune.teachers.teacher import Teacher

log = logging.getLogger("kdprune")


def unseen(config: Config, session: Session) -> np.ndarray:
    """Sample ids that no teacher was or will be trained on; known before any of them is trained.

    Raises:
        ValueError: there are none.
    """
    data = session.data
    left = np.setdiff1d(data.train.readable, data.validation)
    for teacher in requested_teachers(config):
        seen = _seen_before(data, teacher) if teacher.has_weights else _seen_here(config, session, teacher.name)
        for ids in seen:
            left = np.setdiff1d(left, ids)
        if not len(left):
            raise ValueError(
                f"--teacher.weights: learned needs training samples that no teacher was trained on, and with "
                f"{teacher.name} there are none; allowed are teachers of a part (--teacher.train_fraction 0.9), or "
                "numbers"
            )
    return left


def warn_of_seen_validation(config: Config, session: Session) -> None:
    """A teacher that was trained on the validation part makes its accuracy look better than it is."""
    data = session.data
    for teacher in requested_teachers(config) if len(data.validation) else []:
        seen = _seen_before(data, teacher) if teacher.has_weights else []
        if any(len(np.intersect1d(ids, data.validation)) for ids in seen):
            log.warning(
                "--data.val_fraction: %s was trained on samples that are held out for validation, so val_top1 is no "
                "fair measure; train a teacher with the same --data.val_fraction and seed",
                teacher.name,
            )


def learn(config: Config, session: Session, teachers: Sequence[Teacher], ids: np.ndarray) -> list[float]:
    """The weights under which the labels of these samples, seen without augmentation, are likeliest.

    Each teacher answers at 1, or at its own of `--teacher.temperatures` over the run's, as `combine` takes it.
    """
    temperature = config.distill.temperature
    temperatures = config.teacher.temperatures or [temperature] * len(teachers)
    log_p_KN = torch.stack(
        [_of_labels(session, teacher, ids, temperature / t) for teacher, t in zip(teachers, temperatures, strict=True)]
    )
    weights = max_likelihood_weights(log_p_KN)
    log.info(
        "weights of the teachers, learned on %d samples that none was trained on: %s",
        len(ids),
        ", ".join(f"{teacher.built.name} {w:.3f}" for teacher, w in zip(teachers, weights, strict=True)),
    )
    return weights


def _of_labels(session: Session, teacher: Teacher, ids: np.ndarray, scale: float) -> Tensor:
    """Logarithms of the probabilities that a teacher gives to the samples' labels, N, on the host."""

    def log_p(batch: Batch) -> Tensor:
        return torch.log_softmax(scale * teacher(batch.images), 1).gather(1, batch.labels[:, None])[:, 0]

    return predict(log_p, session.data.train, ids, teacher.built.spec, session.place).double().cpu()


def _seen_here(config: Config, session: Session, name: str) -> list[np.ndarray]:
    """What a teacher will be trained on, and each born-again generation before it."""
    recipe = teacher_recipe(config, name)
    ids = [choose_subset(recipe, session).ids]
    return ids + _seen_here(recipe, session, name) if recipe.teacher.models else ids


def _seen_before(data: Data, teacher: TeacherRequest) -> list[np.ndarray]:
    """What a teacher was trained on, and its own teachers before it, as far as their runs are there to say it."""
    try:
        weights = Path(teacher.checkpoint) if teacher.checkpoint else resolve_teacher(teacher.name)
        run = None if weights is None else run_of(weights)
        if run is not None:
            ids = [load_subset(run / "subset.json", data.fingerprint, len(data.train)).ids]
            for before in read_summary(run)["teacher"] if (run / SUMMARY).is_file() else []:
                ids += _seen_before(data, TeacherRequest(before["source"], None, True))
            return ids
        reason = "what it was trained on is not known"
    except ValueError as error:
        reason = str(error)
    log.warning("%s is taken to have seen none of the training samples (%s)", teacher.name, reason)
    return []
