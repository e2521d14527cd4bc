"""`kdprune cache`: fill the teachers' targets of a run ahead of it, or verify what is there."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from kdprune import bars
from kdprune.checks import check, check_files
from kdprune.config import Config
from kdprune.data.counter import key, permutation
from kdprune.data.reader import Request
from kdprune.pipeline.effect import settled
from kdprune.pipeline.freezing import freeze_teachers
from kdprune.pipeline.given import NOTHING_GIVEN, Given
from kdprune.pipeline.job import Job, make_job
from kdprune.pipeline.recipes import check_optimizers
from kdprune.pipeline.rehearsal import rehearse
from kdprune.pipeline.score import check_selection
from kdprune.pipeline.session import open_session
from kdprune.pipeline.targets import count_views, make_targets
from kdprune.pipeline.teachers import check_models, given_teachers, load_teachers
from kdprune.pipeline.train import observed, train
from kdprune.runs.accelerator import make_accelerator
from kdprune.teachers.frozen import ERROR_LIMIT
from kdprune.teachers.targets import CachedTargets
from kdprune.training.interrupt import Interrupted, StopRequest

log = logging.getLogger("kdprune")

VERIFIED = 256  # entries of each view
ENTRY_LIMIT = 0.1
"""Largest relative error of one entry; bfloat16 alone makes less than 0.01."""


@dataclass(frozen=True)
class CacheResult:
    """What `cache` did.

    Attributes:
        written: entries that this process wrote.
        views: how many views are there now.
        folders: of the caches, one a teacher.
        error: the largest relative error of a view's sample; None unless it was verified.
        healed: damaged entries that were found by verifying, and computed again.
    """

    written: int
    views: int
    folders: list[Path]
    error: float | None = None
    healed: int = 0


def cache(config: Config, verify: bool = False, given: Given = NOTHING_GIVEN) -> CacheResult:
    """Fill the caches that training with these settings would read; every process takes a part; resumable.

    Args:
        config: as for training; its teachers must have been given or are trained first.
        verify: afterwards, compute a sample of the entries again and compare.
        given: data and teachers that are no names in the settings.

    Raises:
        ValueError: no teacher; or entries that are not what the teacher says now.
    """
    config = given.named(config)
    config.teacher.targets = "cached"  # what this is for, whether it was said or not
    check(config)
    check_optimizers(config)
    check_files(config)
    check_models(config)
    check_selection(config)
    config = settled(config, "cache")
    if not config.teacher.models:
        raise ValueError("--teacher.models: none given, so there is nothing to cache")
    accelerator = make_accelerator(config.train.precision, [], config.output)
    session = observed(config, open_session(config, accelerator, given))
    job = make_job(config, session)
    known = given_teachers(config, session)
    rehearse(job, known)
    loaded = load_teachers(config, session, train, known)
    teachers = freeze_teachers(config, session, loaded, with_features=False)
    targets = make_targets(job, teachers, None)
    assert isinstance(targets, CachedTargets)
    written = _fill(job, targets)
    accelerator.wait_for_everyone()
    error, healed = None, 0
    if accelerator.is_main_process:
        log.info("%s entries written by this process, all %d views are there", f"{written:,}", count_views(job))
        if verify:
            healed = _heal(job, targets)
            error = _verify(job, targets)
    return CacheResult(written, count_views(job), [cache.folder for cache in targets.caches], error, healed)


def _fill(job: Job, targets: CachedTargets) -> int:
    """Compute what is missing of this process's part of the kept samples; how many entries."""
    accelerator, views = job.session.accelerator, count_views(job)
    # Neighbours stay with one process, which then writes them in one call.
    local_ids = np.array_split(job.subset.ids, accelerator.num_processes)[accelerator.process_index]
    size = max(1, job.config.train.batch_size // accelerator.num_processes)

    def missing(view: int) -> np.ndarray:
        stored = np.all([cache.have(view, local_ids) for cache in targets.caches], axis=0)
        return local_ids[~stored]

    def requests() -> Iterator[Request]:
        for view in range(views):
            for ids in torch.from_numpy(missing(view)).split(size):
                if len(ids):
                    yield ids, torch.full_like(ids, view)

    written = 0
    total = sum(len(missing(view)) for view in range(views))
    quiet = None if accelerator.is_main_process and bars.shown() else True
    with StopRequest() as stop, tqdm(total=total, desc="caching", unit="img", disable=quiet) as bar:
        for batch in job.reader().read(requests()):
            targets.logits(batch)
            written += len(batch.ids)
            bar.update(len(batch.ids))
            if stop.signal:
                raise Interrupted(
                    f"{stop.signal}: stopped with {written:,} of {total:,} entries; the same command goes on"
                )
    return written


def _heal(job: Job, targets: CachedTargets) -> int:
    """Compute entries again that do not fit their checksums; how many there were. Reads all that is there."""
    healed = 0
    for view in range(count_views(job)):
        ids = torch.from_numpy(np.unique(np.concatenate([cache.damaged(view) for cache in targets.caches])))
        for batch in job.reader().read(
            (part, torch.full_like(part, view)) for part in ids.split(VERIFIED) if len(part)
        ):
            targets.logits(batch)
        healed += len(ids)
    return healed


def _verify(job: Job, targets: CachedTargets) -> float:
    """The largest relative error ‖cached - computed‖/‖computed‖ over the views' samples.

    Raises:
        ValueError: above 2% for a view's sample, or above `ENTRY_LIMIT` for one entry.
    """
    worst, temperature, views = 0.0, job.config.distill.temperature, count_views(job)
    order = permutation(key("verify"), torch.from_numpy(job.subset.ids))
    ids = order[:VERIFIED].sort().values
    for batch in job.reader().read((ids, torch.full_like(ids, view)) for view in range(views)):
        view = int(batch.views[0])
        for teacher, stored in zip(targets.teachers, targets.caches, strict=True):
            words = torch.from_numpy(stored.read(view, ids.numpy())[0])
            cached = stored.entries.decode(words, temperature)
            # Of two equal logits either may be among the k largest, so the entry decides which classes are compared.
            computed = stored.entries.decode(stored.entries.encode(teacher(batch.images).cpu(), words), temperature)
            error = ((cached - computed).norm() / computed.norm()).item()
            error_N = (cached - computed).norm(dim=1) / computed.norm(dim=1)
            one = int(error_N.nan_to_num(math.inf).argmax())
            if not error_N[one] <= ENTRY_LIMIT:
                off = f"off by {error_N[one]:.1%} from what the teacher says now"
                raise ValueError(
                    f"{stored.folder}: the entry of sample {ids[one]} in view {view} is "
                    f"{'not a number' if error_N[one].isnan() else off}; remove the folder"
                )
            if not error <= ERROR_LIMIT:
                raise ValueError(
                    f"{stored.folder}: view {view} is off by {error:.1%} from what the teacher says now; "
                    "remove the folder"
                )
            worst = max(worst, error)
    log.info("verified %d entries in each of %d views: relative error at most %.2g", len(ids), views, worst)
    return worst
