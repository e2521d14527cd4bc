"""Iterative magnitude pruning with rewinding, level by level (Frankle & Carbin 2019, arXiv 1803.03635).

Level 0 trains the dense student and keeps its weights after step k. Each further level prunes a part of the weights
that the one before has left, those of the smallest magnitude at its end, sets the others back to step k and trains them
again from there, in the schedule as in the order of samples (Frankle et al. 2020, arXiv 1912.05671). A level is a run
like any other, found by its contents.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdprune.artefact import Key
from kdprune.config import Config, StudentConfig
from kdprune.messages import about
from kdprune.models.hashing import weights_hash
from kdprune.models.locate import snapshots
from kdprune.models.mask import Mask
from kdprune.models.mask_file import JSON, load_mask, save_mask
from kdprune.models.prunable import prunable
from kdprune.models.saved import load_model
from kdprune.pipeline.effect import settled
from kdprune.pipeline.job import check_rewinding, make_job
from kdprune.pipeline.masks import VERSION
from kdprune.pipeline.obtain_mask import obtain_mask
from kdprune.pipeline.recipes import dense
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.train import Result, check_settings, observed, train
from kdprune.pruners.common.network import Network
from kdprune.pruners.common.prune import prune
from kdprune.pruners.common.pruner import bound
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import WEIGHTS

log = logging.getLogger("kdprune")

PRUNER = "magnitude"


@dataclass(frozen=True)
class Plan:
    """What is pruned, how often.

    Attributes:
        levels: beside the dense one, at least 1.
        rate: part of the weights left that each level prunes, in (0, 1).
        rewind_to: the step k whose weights each level begins with; 0: the first ones.
        repeats: lotteries of seeds that follow each other.
    """

    levels: int = 10
    rate: float = 0.2
    rewind_to: int = 0
    repeats: int = 1

    def __post_init__(self) -> None:
        for name, given, fits, allowed in (
            ("levels", self.levels, self.levels >= 1, "1 or more"),
            ("rate", self.rate, 0 < self.rate < 1, "above 0 and below 1"),
            ("rewind_to", self.rewind_to, self.rewind_to >= 0, "a step, 0 or more"),
            ("repeats", self.repeats, self.repeats >= 1, "1 or more"),
        ):
            if not fits:
                raise ValueError(f"--{name}: {given} given, allowed is {allowed}")

    def sparsity(self, level: int) -> float:
        """Pruned / all prunable weights at a level."""
        return 1 - (1 - self.rate) ** level


@dataclass(frozen=True)
class Level:
    """A trained level.

    Attributes:
        number: 0 for the dense student.
        density: of its prunable weights.
    """

    number: int
    seed: int
    density: float
    result: Result


def lottery(config: Config, plan: Plan) -> Iterator[Level]:
    """Train all levels of all repeats, or find them.

    Args:
        config: of the dense student's training; its scope and excluded layers are those of the pruning.

    Yields:
        Each level when it is trained.

    Raises:
        ValueError: a setting that does not fit; said before any training, with what is allowed.
    """
    how = config.student
    _check(config)
    base = replace(deepcopy(config), student=dense(config.student))
    check_settings(base)
    base = settled(base)
    accelerator = make_accelerator(base.train.precision, list(base.log_with), base.output)
    for repeat in range(plan.repeats):
        one = replace(deepcopy(base), seed=base.seed + repeat)
        yield from _of_seed(one, plan, how, open_session(one, accelerator))


def _check(config: Config) -> None:
    """Refuse what the levels say themselves.

    Raises:
        ValueError: naming the option.
    """
    student, default = config.student, StudentConfig()
    for name in ("pattern", "sparsity", "pruner", "prune_at", "mask", "mask_check", "rewind_to"):
        if (given := getattr(student, name)) != getattr(default, name):
            raise ValueError(f"--student.{name}: {given} given, which the levels of a lottery say themselves")
    if config.baseline:
        raise ValueError("--baseline: true given, which is of single runs: repeat the lottery without a teacher")


def _of_seed(config: Config, plan: Plan, how: StudentConfig, session: Session) -> Iterator[Level]:
    """The levels of one seed."""
    config.train.save_steps = sorted({*config.train.save_steps, *([plan.rewind_to] if plan.rewind_to else [])})
    rewound = replace(deepcopy(config), student=replace(config.student, rewind_to=plan.rewind_to))
    with about("--rewind_to"):
        job = make_job(config, session)
        check_rewinding(rewound, job.budget, job.dynamic, with_weights=True)
    session = observed(config, session)
    before = train(_named(config, 0), session)
    yield Level(0, config.seed, 1.0, before)
    first = _first_weights(config.student, before, plan.rewind_to)
    for level in range(1, plan.levels + 1):
        mask = next_mask(before.path, plan.sparsity(level), how, config, session.accelerator)
        new = deepcopy(config)
        new.student = replace(first, mask=str(mask / JSON), allow_collapse=how.allow_collapse)
        new.train.save_steps = [step for step in new.train.save_steps if step > plan.rewind_to]
        new.train.save_epochs = [one for one in new.train.save_epochs if one * job.budget.epoch > plan.rewind_to]
        before = train(_named(new, level), session)
        yield Level(level, config.seed, load_mask(mask).density, before)


def _named(config: Config, level: int) -> Config:
    """The settings of a level under a name of its own, if the lottery was given one."""
    return replace(config, name=f"{config.name}-s{config.seed}-level{level}" if config.name else None)


def _first_weights(student: StudentConfig, dense_run: Result, step: int) -> StudentConfig:
    """A student that begins with the weights that the dense one had after a step."""
    if step == 0:
        return student
    kept = snapshots(dense_run.path)[f"step{step}"]
    return replace(student, checkpoint=str(kept), pretrained=False, rewind_to=step)


def next_mask(run: Path, sparsity: float, how: StudentConfig, config: Config, accelerator: Accelerator) -> Path:
    """The folder of the mask that prunes a run's student further; found if it was made before."""
    student = load_model(run / WEIGHTS)
    before = load_mask(run) if (run / JSON).exists() else None
    names = prunable(student.model, how.prune_exclude)
    contents: Key = {
        "version": VERSION,
        "pruner": PRUNER,
        "sparsity": sparsity,
        "scope": how.prune_scope,
        "exclude": sorted(how.prune_exclude) or None,
        "seed": config.seed_of("weights"),
        "weights": weights_hash(student.model.state_dict()),
        "mask": None if before is None else before.hash,
    }

    def make(folder: Path) -> list[str]:
        size = (student.spec.channels, *student.spec.size_HW)
        network = Network(student.model, names.names, size, seed=contents["seed"], device=accelerator.device)
        alive = None if before is None else before.kept
        kept = prune(network, bound(PRUNER), sparsity, scope=how.prune_scope, seed=contents["seed"], alive=alive)
        parameters = dict(student.model.named_parameters())
        excluded = {name: tuple(parameters[name].shape) for name in names.excluded}
        made: dict[str, Any] = {**contents, "at": "end", "model": student.name, "run": run.name}
        return save_mask(folder, Mask(kept, excluded, made))

    return obtain_mask(config, accelerator, contents, make)
