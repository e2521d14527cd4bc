"""`kdprune cache`: fill the teachers' targets of a run ahead of it, or verify what is there."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kdprune.config import Config
from kdprune.data.counter import key, permutation
from kdprune.data.reader import Reader, Request
from kdprune.pipeline.arms import check_models
from kdprune.pipeline.experiment import Experiment
from kdprune.runs.accelerator import make_accelerator
from kdprune.teachers.frozen import ERROR_LIMIT
from kdprune.teachers.targets import CachedTargets
from kdprune.training.interrupt import Interrupted, StopRequest

log = logging.getLogger("kdprune")

VERIFIED = 256  # entries of each view
ENTRY_LIMIT = 0.1
"""Largest relative error of one entry; bfloat16 alone makes less than 0.01."""


def cache(config: Config, verify: bool) -> dict[str, Any]:
    """Fill the caches that training with these settings would read; every process takes a part; resumable.

    Args:
        config: as for training; its teachers must have been given or are trained first.
        verify: afterwards, compute a sample of the entries again and compare.

    Returns:
        entries written, and with `verify` the largest relative error of a view's sample.

    Raises:
        ValueError: no teacher; or entries that are not what the teacher says now.
    """
    config = deepcopy(config)
    config.teacher.targets = "cached"  # what this is for, whether it was said or not
    config.check()
    check_models(config)
    if not config.teacher.models:
        raise ValueError("--teacher.models: none given, so there is nothing to cache")
    accelerator = make_accelerator(config.train.precision, [], config.output)
    experiment = Experiment(config, accelerator)
    experiment.loss(config)
    subset = experiment.subset(config)
    teachers = experiment.teachers(config, with_features=False)
    reader = experiment.reader(config, experiment.student(config), subset)
    caches = experiment.open_caches(config, teachers, subset, reader)
    views = experiment.views(config, subset)
    targets = CachedTargets(teachers, caches, config.distill.temperature)
    # Neighbours stay with one process, which then writes them in one call.
    local_ids = np.array_split(subset.ids, accelerator.num_processes)[accelerator.process_index]
    size = max(1, config.train.batch_size // accelerator.num_processes)

    def missing(view: int) -> np.ndarray:
        """Ids of this process's part that one of the caches lacks in a view."""
        return local_ids[~np.all([cache.have(view, local_ids) for cache in caches], axis=0)]

    def requests() -> Iterator[Request]:
        for view in range(views):
            ids = torch.from_numpy(missing(view))
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                yield part, torch.full_like(part, view)

    written = 0
    total = sum(len(missing(view)) for view in range(views))
    main = accelerator.is_main_process
    with StopRequest() as stop, tqdm(total=total, desc="caching", unit="img", disable=None if main else True) as bar:
        for batch in reader.read(requests()):
            targets.logits(batch)
            written += len(batch.ids)
            bar.update(len(batch.ids))
            if stop.signal:
                raise Interrupted(
                    f"{stop.signal}: stopped with {written:,} of {total:,} entries; the same command goes on"
                )
    accelerator.wait_for_everyone()
    result: dict[str, Any] = {"written": written, "views": views, "folders": [str(c.folder) for c in caches]}
    if main:
        log.info("%s entries written by this process, all %d views are there", f"{written:,}", views)
        if verify:
            result["healed"] = _heal(targets, reader, views)
            result["error"] = _verify(subset.ids, config.distill.temperature, targets, reader, views)
    return result


def _heal(targets: CachedTargets, reader: Reader, views: int) -> int:
    """Compute entries again that do not fit their checksums; how many there were. Reads all that is there."""
    healed = 0
    for view in range(views):
        ids = torch.from_numpy(np.unique(np.concatenate([cache.damaged(view) for cache in targets.caches])))
        parts = [ids[start : start + VERIFIED] for start in range(0, len(ids), VERIFIED)]
        for batch in reader.read((part, torch.full_like(part, view)) for part in parts):
            targets.logits(batch)
        healed += len(ids)
    return healed


def _verify(kept: np.ndarray, temperature: float, targets: CachedTargets, reader: Reader, views: int) -> float:
    """The largest relative error ‖cached - computed‖/‖computed‖ over the views' samples.

    Raises:
        ValueError: above 2% for a view's sample, or above `ENTRY_LIMIT` for one entry.
    """
    worst = 0.0
    order = permutation(key("verify"), torch.from_numpy(kept))
    ids = order[:VERIFIED].sort().values
    for batch in reader.read((ids, torch.full_like(ids, view)) for view in range(views)):
        view = int(batch.views[0])
        for teacher, cache in zip(targets.teachers, targets.caches, strict=True):
            words = torch.from_numpy(cache.read(view, ids.numpy())[0])
            stored = cache.entries.decode(words, temperature)
            # Of two equal logits either may be among the k largest, so the entry decides which classes are compared.
            now = cache.entries.decode(cache.entries.encode(teacher(batch.images).cpu(), words), temperature)
            error = ((stored - now).norm() / now.norm()).item()
            error_N = (stored - now).norm(dim=1) / now.norm(dim=1)
            one = int(error_N.nan_to_num(math.inf).argmax())
            if not error_N[one] <= ENTRY_LIMIT:
                off = f"off by {error_N[one]:.1%} from what the teacher says now"
                raise ValueError(
                    f"{cache.folder}: the entry of sample {ids[one]} in view {view} is "
                    f"{'not a number' if error_N[one].isnan() else off}; remove the folder"
                )
            if not error <= ERROR_LIMIT:
                raise ValueError(
                    f"{cache.folder}: view {view} is off by {error:.1%} from what the teacher says now; "
                    "remove the folder"
                )
            worst = max(worst, error)
    log.info("verified %d entries in each of %d views: relative error at most %.2g", len(ids), views, worst)
    return worst
