"""Children of a training: it goes on once more from one of its steps, on other minibatches and views.

They have the weights of the parent after step k in common, and its schedule from there on (Frankle et al. 2020, arXiv
1912.05671, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from kdprune.config import Config, RecordConfig, StudentConfig, SubsetConfig
from kdprune.messages import about
from kdprune.models.locate import resolve_teacher
from kdprune.models.mask_file import JSON
from kdprune.pipeline.job import make_job
from kdprune.pipeline.recipes import dense
from kdprune.pipeline.session import Session
from kdprune.pruners.common.when import INIT
from kdprune.runs.reading import SUBSET
from kdprune.training.schedule import Budget

CHILDREN = 2
FOLDER = "children"  # in the output
FIRST = "0"
"""The weights that a run began with."""


def step_of(name: str, run: Path, config: Config, budget: Budget) -> int:
    """After which step of a run its weights were those that `name` stands for.

    Args:
        name: `FIRST`, else a snapshot of the run, as in `RUN@`: "5" after epoch 5, "step300" after step 300.

    Raises:
        ValueError: no such snapshot; those that were kept are named.
    """
    if name == FIRST:
        return config.student.rewind_to
    resolve_teacher(f"{run}@{name}")
    if name.startswith("step"):
        return int(name.removeprefix("step"))
    return min(budget.steps, -(-int(name) * budget.kept // budget.batch_size))


def begun_at(name: str, step: int, run: Path, student: StudentConfig) -> StudentConfig:
    """A run's student that begins where the run was after a step, under the mask that the run had from its first step.

    Args:
        student: of the run.
    """
    if (run / JSON).exists() and (student.mask is not None or student.prune_at == INIT):
        # The bits, since a pruner would score other weights, on samples of another seed.
        check = student.mask_check if student.mask_check == "reinit" and name == FIRST else None
        student = replace(
            dense(student),
            mask=str(run / JSON),
            mask_check=check,
            allow_collapse=student.allow_collapse,
            rewind_to=student.rewind_to,
        )
    if name == FIRST:
        return student
    return replace(student, checkpoint=str(resolve_teacher(f"{run}@{name}")), pretrained=False, rewind_to=step)


def going_on(config: Config, run: Path, student: StudentConfig, data_seed: int) -> Config:
    """The rest of a run's training, for a student that begins somewhere on its way.

    Schedule and order go on at the student's step. Momentum begins at 0.

    Args:
        config, run: of the training.
        data_seed: of order and views.
    """
    new = deepcopy(config)
    new.name, new.baseline, new.log_with, new.record, new.student = None, False, [], RecordConfig(), student
    if config.subset.dynamic is None:
        new.subset = SubsetConfig(file=str(run / SUBSET))
    new.train = replace(config.train, save_epochs=[], save_steps=[], record="none")
    new.seeds = replace(config.seeds, data=data_seed)
    return new


def children_of(config: Config, run: Path, steps: Mapping[str, int], session: Session) -> dict[str, list[Config]]:
    """Recipes of the children of a run by spawning time, once it is known that all of them can be trained.

    Args:
        steps: by spawning time, before the last one.

    Raises:
        ValueError: a training that cannot go on from its middle.
    """
    recipes = {name: child_recipes(config, run, name, step) for name, step in steps.items()}
    for first, _ in recipes.values():
        with about("--spawn"):
            make_job(first, session)
    return recipes


def child_recipes(config: Config, run: Path, name: str, step: int) -> list[Config]:
    """Recipes of two children of a run, each with a seed of its own for order and views."""
    student, seed = begun_at(name, step, run, config.student), config.seed_of("data")
    return [going_on(config, run, student, seed + number) for number in range(1, CHILDREN + 1)]
