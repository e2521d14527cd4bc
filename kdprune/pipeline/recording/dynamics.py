"""Dynamics: runs that kept what they saw of each sample, of teachers that are trained here anyway or of proxies."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from kdprune.config import Config, RecordConfig, dotted
from kdprune.pipeline.proxies import proxy_recipe, train_proxies
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.recording.recorded import Recorded, cost_of
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train, load_teachers, requested_teachers
from kdprune.records.dynamics import FOLDER, Dynamics
from kdprune.records.dynamics import HEADER as DYNAMICS

log = logging.getLogger("kdprune")


def record_dynamics(config: Config, session: Session, train: Train) -> Recorded:
    """Runs that recorded their dynamics: of the teachers that are trained here, or of proxies."""
    source, asked = config.record.source, asked_of_proxies(config)
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
    return Recorded(runs, cost_of(runs, forward=passes))


def observed_recipe(config: Config) -> Config:
    """The recipe of the training whose dynamics will be recorded, as far as it can be told beforehand."""
    teachers = [request.name for request in requested_teachers(config) if not request.has_weights]
    source, fits = config.record.source, config.teacher.train_fraction == 1
    if teachers and (source == "teacher" or (source == "auto" and fits and not asked_of_proxies(config))):
        return teacher_recipe(config, teachers[0])
    return proxy_recipe(config, 0)


def _recorded_teachers(config: Config, session: Session, train: Train) -> list[Path]:
    """Runs of teachers whose dynamics were recorded on all samples, where they are trained here anyway."""
    trained_here = [request for request in requested_teachers(config) if not request.has_weights]
    if not trained_here or config.teacher.train_fraction < 1:
        return []
    runs = [Path(teacher.source) for teacher in load_teachers(config, session, train) if teacher.training]
    return [run for run in runs if (run / FOLDER / DYNAMICS).is_file()]


def asked_of_proxies(config: Config) -> list[str]:
    """Options that say how proxies are trained; where one is given, proxies are meant."""
    given, default = (dotted({"record": asdict(record)}) for record in (config.record, RecordConfig()))
    others = ("record.source", "record.files", "record.embeddings")
    return [f"--{name}" for name in given if given[name] != default[name] and name not in others]
