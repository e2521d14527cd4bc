"""The teachers' targets of a run: online, or cached by all that they depend on."""

from __future__ import annotations

import logging
from pathlib import Path

from kdprune.artefact import Key, key_hash
from kdprune.checks import EMA
from kdprune.files import check_space, in_bytes
from kdprune.models.features import Features
from kdprune.pipeline.job import Job
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.entries import make_entries
from kdprune.teachers.key import targets_key
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
        key = targets_key(teacher, data.fingerprint, len(data.train), job.views, job.subset.hash, entries)
        caches.append(TargetCache(cache_folder(job, teacher, key, index), key, len(data.train), entries))
    views, ids = count_views(job), job.subset.ids
    required = sum(cache.required_bytes(views, ids) for cache in caches)
    in_all = views * len(ids) * sum(cache.bytes_per_entry for cache in caches)
    what = f"cached targets of {views} views of {len(ids):,} samples"
    folders = ", ".join(str(cache.folder) for cache in caches)
    log.info("%s: %s, for which the disk needs %s more, in %s", what, in_bytes(in_all), in_bytes(required), folders)
    advice = "use a smaller --teacher.views, --teacher.top_k, or another disk with --teacher.cache"
    check_space(caches[0].folder, required, what, advice)
    return caches


def cache_folder(job: Job, teacher: Teacher, key: Key, index: int) -> Path:
    """Where a teacher's cached targets are."""
    settings = job.config.teacher
    if settings.cache:
        folder = Path(settings.cache)
        return folder / f"teacher_{index}" if len(settings.models) > 1 else folder
    return Path(job.config.output) / "targets" / f"{teacher.built.name}-{key_hash(key)[:12]}"


def count_views(job: Job) -> int:
    """How many different views of a sample the run meets."""
    epochs = job.budget.epochs if job.dynamic is None else job.dynamic.views
    return min(job.config.teacher.views or epochs, epochs)
