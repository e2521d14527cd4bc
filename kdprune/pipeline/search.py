"""α (and T) by successive halving on short runs (Jamieson & Talwalkar 2016, arXiv 1502.07943).

Every candidate trains on four fifths of the kept samples and is measured on the fifth, never on held-out data; the
better half goes on with twice the epochs. All of them, and the run itself if its targets are cached, read one cache.
"""

from __future__ import annotations

import itertools
import logging
import math
from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kdprune import alpha as alpha_policies
from kdprune.config import Config
from kdprune.data.counter import key, permutation
from kdprune.data.reader import Reader
from kdprune.data.subset import Subset
from kdprune.files import read_json, write_json
from kdprune.losses.common.sum import Layers, build_loss
from kdprune.runs.run_dir import RunDir
from kdprune.teachers.teacher import Teacher
from kdprune.training.task import Task
from kdprune.training.trainer import Trainer

if TYPE_CHECKING:
    from kdprune.pipeline.workbench import Workbench

log = logging.getLogger("kdprune")

HELD_OUT = 0.2  # of the kept samples
LAST_RUNG = 0.5
"""Part of the run's epochs that the last two candidates train; each rung before it has half as many. At a quarter the
candidates differ less than their noise, and at less the smaller α can lead: see docs/alpha.md."""

Candidate = tuple[float, float]  # α, T


def search_alpha(
    experiment: Workbench, folder: Path, config: Config, teachers: list[Teacher], subset: Subset, reader: Reader,
    layers: Layers,
) -> dict[str, Any]:  # fmt: skip
    """Find α and T for a run; the result is kept in `search.json`, so a resumed run does not search again.

    Returns:
        `alpha`, `temperature`, `rungs` (what each candidate reached) and `cost`.
    """
    path = folder / "search.json"
    if path.exists():
        return read_json(path)
    wanted = alpha_policies.search(config.distill.alpha)
    assert wanted is not None
    temperatures = wanted.temperatures or (config.distill.temperature,)
    candidates: list[Candidate] = list(itertools.product(wanted.alphas, temperatures))
    part, held_out = _split(subset, config.seed)

    def trained(candidate: Candidate, fraction: float, rung: int) -> dict[str, Any]:
        arm = _arm(config, candidate, fraction)
        own = folder / "search" / f"rung{rung}-a{candidate[0]:g}-T{candidate[1]:g}"
        return _train(experiment, RunDir(own, arm), teachers, subset, part, held_out, reader, layers)

    plan = halvings(len(candidates))
    times = (1 - HELD_OUT) * sum(count * fraction for count, fraction in plan)
    log.info("search: %d candidates, about %.2g times the run's samples in all", len(candidates), times)
    cost = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0, "teacher_forward_samples": 0}
    rungs: list[dict[str, Any]] = []
    for count, fraction in plan:
        results = {candidate: trained(candidate, fraction, len(rungs)) for candidate in candidates}
        candidates.sort(key=lambda c: (results[c]["test_top1"], -results[c]["test_loss"]), reverse=True)
        for result in results.values():
            _count(cost, result)
        rungs.append(_record(candidates, results))
        log.info("search: %s", ", ".join(f"α {a:g} T {t:g}: {results[a, t]['test_top1']:.2%}" for a, t in candidates))
        del candidates[math.ceil(count / 2) :]
    alpha, temperature = candidates[0]
    found = {"alpha": alpha, "temperature": temperature, "held_out": len(held_out), "rungs": rungs, "cost": cost}
    if experiment.accelerator.is_main_process:
        write_json(path, found)
    experiment.accelerator.wait_for_everyone()
    log.info("search: α = %g, T = %g in %.0f s", alpha, temperature, cost["seconds"])
    return found


def halvings(count: int) -> list[tuple[int, float]]:
    """How many candidates each rung has, and the part of the run's epochs that they train; the last is `LAST_RUNG`."""
    counts = []
    while count > 1:
        counts.append(count)
        count = math.ceil(count / 2)
    return [(n, LAST_RUNG / 2 ** (len(counts) - 1 - rung)) for rung, n in enumerate(counts)]


def _record(candidates: list[Candidate], results: dict[Candidate, dict[str, Any]]) -> dict[str, Any]:
    """What a rung has found, best first, for `search.json`."""
    found = [
        {"alpha": a, "temperature": t, "top1": results[a, t]["test_top1"], "loss": results[a, t]["test_loss"]}
        for a, t in candidates
    ]
    return {"epochs": results[candidates[0]]["epochs"], "candidates": found}


def with_found(config: Config, found: dict[str, Any]) -> Config:
    """The settings with what a search has found."""
    new = deepcopy(config)
    new.distill.alpha, new.distill.temperature = found["alpha"], found["temperature"]
    return new


def _count(cost: dict[str, Any], result: dict[str, Any]) -> None:
    cost["seconds"] += result["train_seconds"]
    cost["forward_samples"] += result["images_seen"]
    cost["backward_samples"] += result["images_seen"]
    cost["teacher_forward_samples"] += result["teacher_forward_samples"]


def _split(subset: Subset, seed: int) -> tuple[Subset, np.ndarray]:
    order = permutation(key(seed, "search"), torch.from_numpy(subset.ids)).numpy()
    if len(order) < 2:
        raise ValueError(f"--distill.alpha: search judges by a part of the kept samples, and {len(order)} are kept")
    count = max(1, round(HELD_OUT * len(order)))
    return replace(subset, ids=np.sort(order[count:])), np.sort(order[:count])


def _arm(config: Config, candidate: Candidate, fraction: float) -> Config:
    """A candidate's settings: the run's, shortened, with the learning rate's schedule shortened alike."""
    new = with_found(config, {"alpha": candidate[0], "temperature": candidate[1]})
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
    train.save_epochs = []
    train.eval_every = 10**9  # the last epoch is always evaluated
    return new


def _train(
    experiment: Workbench,
    run: RunDir,
    teachers: list[Teacher],
    subset: Subset,
    part: Subset,
    held_out: np.ndarray,
    reader: Reader,
    layers: Layers,
) -> dict[str, Any]:
    """One candidate's short run; one that an interrupted search has finished is not repeated."""
    if run.summary is not None:
        return run.summary
    config = deepcopy(run.config)
    kd = build_loss(config.distill.loss, config.distill.temperature, layers)
    if reader.settings.recipe.mixes:
        reader = copy(reader)  # partners may not come from the held-out fifth, so the cache does not fit
        reader.kept = torch.from_numpy(part.ids).to(reader.device)
        config.teacher.targets = "online"
    elif not kd.needs_features and config.teacher.targets == "online":
        config.teacher.targets, config.teacher.top_k = "cached", None
    targets = experiment.targets(config, kd, teachers, subset, reader)
    task = Task(
        run, experiment.student(config), experiment.data, reader, part, targets, kd,
        alpha_policies.parse(config.distill.alpha), config.teacher.views, f"search α {config.distill.alpha:g}",
        held_out,
    )  # fmt: skip
    trainer = Trainer(task, experiment.accelerator)
    result = trainer.fit()
    if targets.features is not None:
        targets.features.close()  # the next candidate puts its own on the same teacher
    result["teacher_forward_samples"] = targets.forward_samples * experiment.accelerator.num_processes
    if experiment.accelerator.is_main_process:
        run.finish(result)
        trainer.checkpoints.clear()
    experiment.accelerator.wait_for_everyone()
    experiment.accelerator.free_memory()
    return result
