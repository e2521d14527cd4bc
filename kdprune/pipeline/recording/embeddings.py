"""Embeddings: the pooled penultimate features of one model."""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import Tensor

from kdprune.config import Config
from kdprune.data.reader import Batch
from kdprune.models.locate import resolve_teacher
from kdprune.models.names import is_remote
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.proxies import train_proxies
from kdprune.pipeline.recording.recorded import Recorded, cost_of, model_of, placed
from kdprune.pipeline.recording.rows import record_rows, width_of
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import TeacherRequest, Train, load_teacher, load_teachers, requested_teachers
from kdprune.records.rows import Column
from kdprune.runs.reading import WEIGHTS

log = logging.getLogger("kdprune")


def record_embeddings(config: Config, session: Session, train: Train) -> Recorded:
    """Pooled penultimate features, float16, of one model."""
    built = _embedder(config, session, train)
    _, tap, logits = placed(built, session)

    def features(batch: Batch) -> Tensor:
        logits(batch.images)
        return tap.taken().float()

    width = width_of(features, session, built)
    folder = record_rows("embeddings", {"features": Column(width, "float16")}, [built], features, config, session)
    return Recorded([folder], cost_of(forward=len(session.data.train)))


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
    return model_of(run / WEIGHTS, session)
