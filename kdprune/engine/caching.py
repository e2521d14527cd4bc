"""`kdprune cache`: fill the teachers' targets of a run ahead of it, or verify what is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kdprune.config import Config
from kdprune.data.counter import key, permutation
from kdprune.data.reader import Request
from kdprune.engine.experiment import Experiment, check_models
from kdprune.engine.interrupt import Interrupted, StopRequest
from kdprune.engine.runtime import make_accelerator
from kdprune.teachers.frozen import ERROR_LIMIT
from kdprune.teachers.targets import CachedTargets

log = logging.getLogger("kdprune")

VERIFIED = 256  # entries of each view


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
    config.check()
    check_models(config)
    if not config.teacher.models:
        raise ValueError("--teacher.models: none given, so there is nothing to cache")
    accelerator = make_accelerator(config.train.precision, [], config.output)
    experiment = Experiment(config, accelerator)
    subset = experiment.subset(config)
    teachers = experiment.teachers(config, with_features=False)
    reader = experiment.reader(config, experiment.student(config), subset)
    caches = experiment.open_caches(config, teachers, subset, reader)
    views = experiment.views(config, subset)
    targets = CachedTargets(teachers, caches, config.distill.temperature)
    own = subset.ids[accelerator.process_index :: accelerator.num_processes]
    size = max(1, config.train.batch_size // accelerator.num_processes)

    def missing() -> Iterator[Request]:
        for view in range(views):
            rows = caches[0].rows(own)
            there = np.all([cache.have(view, rows) for cache in caches], axis=0)
            for part in np.array_split(own[~there], max(1, -(-int((~there).sum()) // size))):
                if len(part):
                    yield torch.from_numpy(part), torch.full((len(part),), view)

    written = 0
    total = sum(int((~np.all([c.have(v, c.rows(own)) for c in caches], axis=0)).sum()) for v in range(views))
    main = accelerator.is_main_process
    with StopRequest() as stop, tqdm(total=total, desc="caching", unit="img", disable=None if main else True) as bar:
        for batch in reader.read(missing()):
            targets.logits(batch)
            written += len(batch.ids)
            bar.update(len(batch.ids))
            if stop.signal:
                targets.flush()
                raise Interrupted(
                    f"{stop.signal}: stopped with {written:,} of {total:,} entries; the same command goes on"
                )
    targets.flush()
    accelerator.wait_for_everyone()
    result: dict[str, Any] = {"written": written, "views": views, "folders": [str(c.folder) for c in caches]}
    if main:
        log.info("%s entries written by this process, all %d views are there", f"{written:,}", views)
        if verify:
            result["error"] = _verify(experiment, config, targets, reader, views)
    return result


def _verify(experiment: Experiment, config: Config, targets: CachedTargets, reader: Any, views: int) -> float:
    """The largest relative error ‖cached - computed‖/‖computed‖ over the views' samples; above 2% is refused."""
    worst = 0.0
    for index, cache in enumerate(targets.caches):
        order = permutation(key("verify"), torch.from_numpy(cache.ids))
        ids = order[:VERIFIED].sort().values
        for batch in reader.read((ids, torch.full_like(ids, view)) for view in range(views)):
            view = int(batch.views[0])
            words = torch.from_numpy(cache.read(view, cache.rows(ids.numpy())).copy())
            there = cache.entries.decode(words, config.distill.temperature)
            fresh = cache.entries.encode(targets.teachers[index](batch.images)).cpu()
            now = cache.entries.decode(fresh, config.distill.temperature)
            error = ((there - now).norm() / now.norm()).item()
            if not error <= ERROR_LIMIT:
                raise ValueError(
                    f"{cache.folder}: view {view} is off by {error:.1%} from what the teacher says now; "
                    "remove the folder"
                )
            worst = max(worst, error)
    log.info("verified %d entries in each of %d views: relative error at most %.2g", len(ids), views, worst)
    return worst
