"""Teachers as inference engines, measured before anything is learned from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kdprune.config import Config
from kdprune.data.reader import plain_batches
from kdprune.models.hashing import weights_hash
from kdprune.passes.evaluation import batch_for, evaluate
from kdprune.pipeline.preflight import Preflight, found, keep, preflight
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import LoadedTeacher
from kdprune.runs.accelerator import DTYPES
from kdprune.teachers.teacher import Teacher, make_teacher, warn_if_near_chance, warn_if_smoothed

log = logging.getLogger("kdprune")


def freeze_teachers(
    config: Config, session: Session, loaded: Sequence[LoadedTeacher], with_features: bool
) -> list[Teacher]:
    """Make inference engines of the teachers, and measure them before anything is learned from them."""
    hashes = [weights_hash(teacher.built.model.state_dict()) for teacher in loaded]
    if len(set(hashes)) < len(hashes):
        log.warning("--teacher.models: two of the %d teachers have the same weights, so one counts twice", len(hashes))
    return [_freeze(config, session, teacher, with_features) for teacher in loaded]


def _freeze(config: Config, session: Session, loaded: LoadedTeacher, with_features: bool) -> Teacher:
    accelerator, data, built = session.accelerator, session.data, loaded.built
    parts = accelerator.num_processes * config.train.grad_accum
    readable = data.train.readable[: 64 * accelerator.num_processes]
    example = next(plain_batches(data.train, readable, built.spec, session.place, len(readable)))
    how = {
        "fold": config.teacher.engine == "frozen" and not with_features,
        "compile": config.train.compile,
        "batch_size": config.train.batch_size // parts,
    }
    artefact = preflight(config, session, built, readable, **how)
    measured = found(artefact, session)
    teacher = make_teacher(
        built, loaded.source, example.images, accelerator.device, DTYPES[accelerator.mixed_precision], **how,
        known=None if measured is None else (measured.route, measured.precision),
    )  # fmt: skip
    teacher.training = loaded.training
    if measured is not None and (teacher.engine.route, teacher.precision) == (measured.route, measured.precision):
        teacher.test_top1 = measured.test_top1
    else:
        teacher.test_top1 = _top1(teacher, session)
        if measured is None:
            keep(artefact, Preflight(teacher.engine.route, teacher.precision, teacher.test_top1), session)
    if teacher.test_top1 is not None:
        log.info(
            "teacher %s: top-1 %.2f%% on held-out data (%s)", built.name, 100 * teacher.test_top1, teacher.engine.route
        )
        warn_if_near_chance(built.name, teacher.test_top1, data.num_classes)
    warn_if_smoothed(built.name, built.info.get("smoothing", 0.0), config.distill.temperature)
    return teacher


def _top1(teacher: Teacher, session: Session) -> float | None:
    """Accuracy on held-out data; None where there is none."""
    data = session.data
    if data.test is None:
        return None
    spec, place = teacher.built.spec, session.place
    batch_size = batch_for(teacher.engine.network, spec.size_HW, place.device, teacher.engine.dtype)
    batches = plain_batches(data.test, data.test.readable, spec, place, batch_size)
    try:
        top1: float = evaluate(teacher, batches, data.num_classes, session.accelerator)["top1"]
    except FloatingPointError as error:
        raise FloatingPointError(f"teacher {teacher.built.name}: {error}") from None
    return top1
