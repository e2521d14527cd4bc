"""The teachers' targets of a run: online, or cached by all that they depend on."""

from __future__ import annotations

import logging
from pathlib import Path


from kdprune.artefact import Key, key_hash
from kdprune.checks import EMA
from kdprune.files import in_bytes
from kdprune.models.features import Features
from kdprune.pipeline.job import Job
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.entries import make_entries
from kdprune.teachers.targets import CachedTargets, MeanTargets, OnlineTargets
from kdprune.teachers.teacher import Teacher

log = logging.getLogger("kdprune")


def make_targets(job: Job, teachers: list[Teacher], weights: list[float] | None) -> OnlineTargets:
    """What the teachers say of a batch.

    Args:
        weights: of the teachers; None for equal ones.
    """
    config = job.config
    temperature, teacher = config.distill.temperature, config.teacher
    if teacher.models == [EMA]:
        return MeanTargets(temperature)
    if teacher.targets == "cached":
        return CachedTargets(
            teachers,
            open_caches(job, teachers),
            temperature,
            weights=weights,
            temperatures=teacher.temperatures,
            by_correctness=teacher.by_correctness,
        )
    features = None
    if job.loss is not None and job.loss.needs_features:
        features = Features(teachers[0].engine.network, (layer for _, layer in job.loss.layers), "teacher")
    return OnlineTargets(
        teachers,
        temperature,
        weights=weights,
        temperatures=teacher.temperatures,
        features=features,
        by_correctness=teacher.by_correctness,
    )


def open_caches(job: Job, teachers: list[Teacher]) -> list[TargetCache]:
    """A cache for each teacher, with its size announced and refused if the disk cannot hold it."""
    config, data = job.config, job.session.data
    entries = make_entries(data.num_classes, config.teacher.top_k)
    caches = []
    for index, teacher in enumerate(teachers):
        key = targets_key(job, teacher, entries.about)
        caches.append(TargetCache(cache_folder(job, teacher, key, index), key, len(data.train), entries))
    views = count_views(job)
    ids = job.subset.ids
    missing = sum(cache.missing_bytes(views, ids) for cache in caches)
    for cache in caches:
        cache.check(views, ids)
    log.info(
        "cached targets: %d views of %d samples, %s to be written, in %s",
        views,
        len(ids),
        in_bytes(missing),
        ", ".join(str(cache.folder) for cache in caches),
    )
    caches[0].check_space(missing, views)
    return caches


def targets_key(job: Job, teacher: Teacher, entries: str) -> Key:
    """All that a teacher's answer to a view of a sample depends on.

    The subset is no part of it, unless views are mixed: their partners are drawn from the kept samples.
    """
    return {
        "teacher": {"model": teacher.built.name, "arguments": teacher.built.model_args, "weights": teacher.weights_hash},
        "input": teacher.built.spec.to_json(),
        "precision": str(teacher.engine.dtype).removeprefix("torch."),
        "data": job.session.data.fingerprint,
        "views": job.views.key(),
        "subset": job.subset.hash if job.views.recipe.mixes else None,
        "entries": entries,
    }


def cache_folder(job: Job, teacher: Teacher, key: Key, index: int) -> Path:
    """Where a teacher's cached targets are."""
    settings = job.config.teacher
    if settings.cache:
        folder = Path(settings.cache)
        return folder / f"teacher_{index}" if len(settings.models) > 1 else folder
    return Path(job.config.output) / "targets" / f"{teacher.built.name}-{key_hash(key)[:12]}"


def count_views(job: Job) -> int:
    """How many different views of a sample the run meets."""
    epochs = job.budget.epochs
    return min(job.config.teacher.views or epochs, epochs)


