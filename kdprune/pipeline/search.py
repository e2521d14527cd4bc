"""α (and T) by successive halving on short runs (Jamieson & Talwalkar 2016, arXiv 1502.07943).

Every candidate trains on four fifths of the kept samples and is measured on the fifth, never on held-out data; the
better half goes on with twice the epochs. All of them, and the run itself if its targets are cached, read one cache.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kdprune import alpha as alpha_policies
from kdprune.artefact import Artefact, damage, key_hash
from kdprune.config import Config
from kdprune.data.counter import key, permutation
from kdprune.data.subset import Subset
from kdprune.files import write_json
from kdprune.losses.common.sum import build_loss
from kdprune.outside import FINITE, MAPPING, check_fields, list_of, read_json
from kdprune.pipeline.dynamic import make_length
from kdprune.pipeline.job import Job, make_student
from kdprune.pipeline.student import train_student
from kdprune.pipeline.summary import lost_in, student_result
from kdprune.pipeline.targets import make_targets
from kdprune.runs.run_dir import RunDir
from kdprune.teachers.teacher import Teacher
from kdprune.training.checkpoint import Checkpoints

log = logging.getLogger("kdprune")

HELD_OUT = 0.2  # of the kept samples
LAST_RUNG = 0.5
"""Part of the run's epochs that the last two candidates train; each rung before it has half as many. At a quarter the
candidates differ less than their noise, and at less the smaller α can lead: see docs/alpha.md."""
FOUND = "search.json"

Candidate = tuple[float, float]  # α, T


def search_alpha(job: Job, run: RunDir, teachers: list[Teacher], weights: list[float] | None) -> dict[str, Any]:
    """Find α and T for a run; what was found is kept, so that a resumed run does not search again.

    Args:
        weights: of the teachers.

    Returns:
        `alpha`, `temperature`, `rungs` (what each candidate reached) and `cost`.
    """
    artefact = Artefact(run.path / "search", "a search", {"run": key_hash(run.artefact.key)}, "remove it")
    if artefact.finished:
        if changed := damage(artefact.folder):
            raise ValueError(f"{'; '.join(changed)}: remove {artefact.folder}, the search is then made again")
        return check_fields(read_json(artefact.folder / FOUND), _FIELDS, str(artefact.folder / FOUND))
    accelerator = job.session.accelerator
    accelerator.wait_for_everyone()  # nobody looks for the result while it is written
    if accelerator.is_main_process:
        artefact.begin()
    found = _search(job, run, teachers, weights)
    if accelerator.is_main_process:
        write_json(artefact.folder / FOUND, found)
        artefact.finish([FOUND])
    accelerator.wait_for_everyone()
    log.info("search: α = %g, T = %g in %.0f s", found["alpha"], found["temperature"], found["cost"]["seconds"])
    return found


_FIELDS = {"alpha": FINITE, "temperature": FINITE, "rungs": list_of(MAPPING), "cost": MAPPING}


def _search(job: Job, run: RunDir, teachers: list[Teacher], weights: list[float] | None) -> dict[str, Any]:
    config = job.config
    search = alpha_policies.search(config.distill.alpha)
    assert search is not None
    temperatures = search.temperatures or (config.distill.temperature,)
    candidates: list[Candidate] = list(itertools.product(search.alphas, temperatures))
    part, judges = split(job.subset, config.seed_of("subset"))
    plan = halvings(len(candidates))
    times = (1 - HELD_OUT) * sum(count * fraction for count, fraction in plan)
    log.info("search: %d candidates, about %.2g times the run's samples in all", len(candidates), times)
    cost = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0, "teacher_forward_samples": 0}
    rungs: list[dict[str, Any]] = []
    for count, fraction in plan:
        results = {}
        for candidate in candidates:
            short = _candidate(job, candidate, fraction, part)
            folder = run.path / "search" / f"rung{len(rungs)}-a{candidate[0]:g}-T{candidate[1]:g}"
            contents = {"run": run.artefact.key, "alpha": candidate[0], "temperature": candidate[1], "part": fraction}
            results[candidate] = _train(short, RunDir(folder, short.config, contents), teachers, weights, judges)
            _count(cost, results[candidate])
        candidates.sort(key=lambda c: (results[c]["test_top1"], -results[c]["test_loss"]), reverse=True)
        rungs.append(_record(candidates, results))
        log.info("search: %s", ", ".join(f"α {a:g} T {t:g}: {results[a, t]['test_top1']:.2%}" for a, t in candidates))
        del candidates[math.ceil(count / 2) :]
    alpha, temperature = candidates[0]
    return {"alpha": alpha, "temperature": temperature, "held_out": len(judges), "rungs": rungs, "cost": cost}


def halvings(count: int) -> list[tuple[int, float]]:
    """How many candidates each rung has, and the part of the run's epochs that they train; the last is `LAST_RUNG`."""
    counts = list(_halved(count))
    return [(n, LAST_RUNG / 2 ** (len(counts) - 1 - rung)) for rung, n in enumerate(counts)]


def _halved(count: int) -> Iterator[int]:
    while count > 1:
        yield count
        count = math.ceil(count / 2)


def with_found(job: Job, found: dict[str, Any]) -> Job:
    """A job with the α and T that a search has found."""
    config = with_candidate(job.config, (found["alpha"], found["temperature"]))
    assert job.loss is not None
    return replace(job, config=config, loss=build_loss(config.distill.loss, found["temperature"], job.loss.layers))


def with_candidate(config: Config, candidate: Candidate) -> Config:
    """The settings with an α and a T."""
    new = deepcopy(config)
    new.distill.alpha, new.distill.temperature = candidate
    return new


def split(subset: Subset, seed: int) -> tuple[Subset, np.ndarray]:
    """The samples that candidates train on, and those that judge them.

    Raises:
        ValueError: too few are kept.
    """
    order = permutation(key(seed, "search"), torch.from_numpy(subset.ids)).numpy()
    if len(order) < 2:
        raise ValueError(f"--distill.alpha: search judges by a part of the kept samples, and {len(order)} are kept")
    count = max(1, round(HELD_OUT * len(order)))
    return replace(subset, ids=np.sort(order[count:])), np.sort(order[:count])


def shortened(config: Config, fraction: float) -> Config:
    """A run's settings for a part of its length, with the learning rate's schedule shortened alike."""
    new = deepcopy(config)
    train = new.train
    stretch = fraction
    if train.steps is not None:  # in epochs of the part that the candidate trains on
        train.steps = max(1, round(train.steps * fraction * (1 - HELD_OUT)))
    elif train.budget == "full":  # in epochs of all the data
        stretch = fraction * (1 - HELD_OUT)
        train.epochs *= stretch
    else:
        before = train.epochs
        train.epochs = max(min(1.0, before), before * fraction)
        stretch = train.epochs / before
    train.warmup_epochs *= stretch
    train.decay_milestones = [epoch * stretch for epoch in train.decay_milestones]
    train.save_epochs, train.save_steps = [], []
    train.eval_every = 10**9  # the last epoch is always evaluated
    return new


def _candidate(job: Job, candidate: Candidate, fraction: float, part: Subset) -> Job:
    """A candidate's short run on a part of the kept samples."""
    config = shortened(with_candidate(job.config, candidate), fraction)
    assert job.loss is not None
    budget, dynamic = make_length(config, job.session, part)
    if job.views.recipe.mixes:  # partners may not come from the held-out fifth, so the run's cache does not fit
        config.teacher.targets = "online"
    elif not job.loss.needs_features and config.teacher.targets == "online":
        config.teacher.targets, config.teacher.top_k = "cached", None
    return replace(
        job,
        config=config,
        subset=part,
        student=make_student(config, job.session),
        budget=budget,
        dynamic=dynamic,
        loss=build_loss(config.distill.loss, candidate[1], job.loss.layers),
        observers=(),
    )


def _train(
    job: Job, run: RunDir, teachers: list[Teacher], weights: list[float] | None, judges: np.ndarray
) -> dict[str, Any]:
    """One candidate's short run; one that an interrupted search has finished is not repeated."""
    if run.finished:
        return run.summary
    accelerator = job.session.accelerator
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        run.artefact.begin()
    targets = make_targets(job, teachers, weights)
    state = train_student(job, run, targets, judges, f"search α {job.config.distill.alpha:g}")
    if targets.features is not None:
        targets.features.close()  # the next candidate puts its own on the same teacher
    result = student_result(job, state)
    result["lost"] = lost_in(job, state)
    result["teacher_forward_samples"] = targets.forward_samples * accelerator.num_processes
    if accelerator.is_main_process:
        run.finish(result)
        Checkpoints(run.checkpoints, {}, 1).clear()
    accelerator.wait_for_everyone()
    return result


def _record(candidates: list[Candidate], results: dict[Candidate, dict[str, Any]]) -> dict[str, Any]:
    """What a rung has found, best first."""
    found = [
        {"alpha": a, "temperature": t, "top1": results[a, t]["test_top1"], "loss": results[a, t]["test_loss"]}
        for a, t in candidates
    ]
    return {"epochs": results[candidates[0]]["epochs"], "candidates": found}


def _count(cost: dict[str, Any], result: dict[str, Any]) -> None:
    lost = result.get("lost", {"seconds": 0.0, "samples": 0})
    cost["seconds"] += result["train_seconds"] + lost["seconds"]
    cost["forward_samples"] += result["images_seen"] + lost["samples"]
    cost["backward_samples"] += result["images_seen"] + lost["samples"]
    cost["teacher_forward_samples"] += result["teacher_forward_samples"]
