"""Records: what is observed of each sample, made once and found again.

A record of dynamics is a run that kept it; the others are artefacts in `<output>/records/`: embeddings, gradients, what
a teacher says, and memorization.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdprune.config import Config
from kdprune.pipeline.proxies import RECORDS, proxy_recipe
from kdprune.pipeline.recording.dynamics import observed_recipe, record_dynamics
from kdprune.pipeline.recording.embeddings import record_embeddings
from kdprune.pipeline.recording.gradients import record_gradients
from kdprune.pipeline.recording.memorization import record_memorization
from kdprune.pipeline.recording.recorded import Recorded
from kdprune.pipeline.recording.teacher import record_teacher
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train, requested_teachers, teacher_trainings

KINDS: dict[str, Callable[[Config, Session, Train], Recorded]] = {
    "dynamics": record_dynamics,
    "embeddings": record_embeddings,
    "gradients": record_gradients,
    "teacher": record_teacher,
    "memorization": record_memorization,
}


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
