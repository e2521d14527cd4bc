"""The error barrier between two children of a training, by the difficulty of samples (Paul et al. 2021, §5.2)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from kdprune.analysis.interpolation import barriers, interpolated, with_fresh_statistics
from kdprune.analysis.ranks import by_difficulty, parts_of
from kdprune.config import Config, RecordConfig, SubsetConfig
from kdprune.data.counter import key
from kdprune.data.reader import Batch, plain_batches
from kdprune.data.scores import Scores, load_scores
from kdprune.data.subset import load_subset
from kdprune.messages import listed
from kdprune.models.build import load_model
from kdprune.models.locate import resolve_teacher
from kdprune.passes.evaluation import student_logits
from kdprune.passes.predict import predict
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.student import place
from kdprune.pipeline.train import train
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.reading import SUBSET, WEIGHTS, read_config
from kdprune.selectors.common.order import first_by_hash
from kdprune.training.schedule import ONE_CYCLE, Budget, make_budget, rate_after, rise_steps

log = logging.getLogger("kdprune")

CHILDREN = 2
FOLDER = "children"  # in the output
FOR_STATISTICS = 2048  # samples on which BatchNorm's statistics are measured


def error_barriers(
    run: Path, scores: Path, spawn: Sequence[str] = ("0",), parts: int = 10, points: int = 11, output: str | None = None
) -> list[dict[str, float | str]]:
    """Train two children from each spawning time to the end, and measure the line between them.

    Args:
        run: the parent.
        scores: a score file of its data.
        spawn: "0" for its first weights, else snapshots of it, as in `RUN@`: "5", "step300".
        parts: of equal size that the samples are cut into by their difficulty.
        points: of the line, its ends among them.
        output: folder for the children (default: the parent's output).

    Returns:
        A row a spawning time and part: `spawn`, `step`, `part` (1 is the easiest), `score` (its mean), `error` (mean
        of the children's), `middle` (error at α = ½ or next to it), `barrier`; training errors, on plain images.

    Raises:
        ValueError: no such snapshot; scores of other data; a spawning time at the very end; fewer than three points.
    """
    if points < 3:
        raise ValueError(f"--points: {points} given, allowed are 3 and more: both ends, and what lies between them")
    config = read_config(run)
    session = open_session(config, make_accelerator(config.train.precision, [], config.output))
    found = load_scores(scores, session.data.fingerprint, len(session.data.train))
    subset = load_subset(run / SUBSET, session.data.fingerprint, len(session.data.train))
    order = by_difficulty(found)
    parts_S = parts_of(order[np.isin(order, subset.ids)], parts)
    budget = make_budget(config.train, len(subset.ids), subset.total)
    steps = {name: step_of(name, run, budget) for name in spawn}
    recipes = {name: child_recipes(config, run, name, steps[name], budget) for name in spawn}
    _say_cost(steps, budget, points, len(subset.ids))
    folder = Path(output or config.output) / FOLDER
    rows: list[dict[str, float | str]] = []
    for name in spawn:
        ends = [train(recipe, session, folder).path for recipe in recipes[name]]
        line = _line(ends, subset.ids, parts_S, points, found, session)
        rows += [{"spawn": name, "step": steps[name], **row} for row in line]
    return rows


def step_of(name: str, run: Path, budget: Budget) -> int:
    """After which step of the parent its children begin.

    Raises:
        ValueError: no such snapshot, or nothing is left to be trained.
    """
    if name == "0":
        return 0
    with_prefix = name.startswith("step")
    resolve_teacher(f"{run}@{name}")
    number = int(name.removeprefix("step"))
    step = number if with_prefix else min(budget.steps, -(-number * budget.kept // budget.batch_size))
    if step >= budget.steps:
        raise ValueError(f"--spawn: {name} given, and the training of {run} ends there; allowed is what came before")
    return step


def child_recipes(config: Config, run: Path, spawn: str, step: int, budget: Budget) -> list[Config]:
    """Recipes of two children: the rest of the parent's training, on minibatches of their own.

    The rate goes on from where the parent's was; milestones and warm-up keep their steps. A cosine falls from there
    to its end along an arc of its own, and so does a cycle; poly and multistep exactly as the parent's. Momentum begins
    at 0.
    """
    new = deepcopy(config)
    new.name, new.baseline, new.log_with, new.record = None, False, [], RecordConfig()
    new.subset = SubsetConfig(file=str(run / SUBSET))
    epoch = budget.kept / budget.batch_size  # what a child counts its schedule by, since its steps are given
    cycles = config.train.sched == ONE_CYCLE
    warmup = rise_steps(config.train, budget) if cycles else config.train.warmup_epochs * budget.schedule_epoch
    new.train = replace(
        config.train,
        steps=budget.steps - step,
        lr=rate_after(config.train, budget, step),
        lr_base=None,
        sched="cosine" if cycles else config.train.sched,  # what is left of a cycle
        warmup_epochs=max(0.0, warmup - step) / epoch,
        decay_milestones=_milestones(config, budget, step),
        save_epochs=[],
        save_steps=[],
        record="none",
    )
    if step:
        new.student = replace(config.student, checkpoint=str(resolve_teacher(f"{run}@{spawn}")), pretrained=False)
    children = []
    for number in range(1, CHILDREN + 1):
        child = deepcopy(new)
        child.seeds = replace(config.seeds, data=config.seed_of("data") + number)
        children.append(child)
    return children


def _milestones(config: Config, budget: Budget, step: int) -> list[float]:
    epoch = budget.kept / budget.batch_size
    steps = [round(milestone * budget.schedule_epoch) - step for milestone in config.train.decay_milestones]
    return [ahead / epoch for ahead in steps if ahead > 0]


def _say_cost(steps: dict[str, int], budget: Budget, points: int, total: int) -> None:
    trained = sum(CHILDREN * (budget.steps - step) for step in steps.values()) * budget.batch_size
    log.info(
        "%d children of %s: %s samples forward and backward, unless they are found; and %s forward for the lines",
        CHILDREN * len(steps), listed(list(steps)), f"{trained:,}", f"{len(steps) * points * total:,}",
    )  # fmt: skip


def _line(
    ends: list[Path], kept: np.ndarray, parts: list[np.ndarray], points: int, scores: Scores, session: Session
) -> list[dict[str, float]]:
    """A row a part of the line between two runs' students."""
    alphas_A = np.linspace(0, 1, points)
    wrong_AN = wrong_on_line(ends, alphas_A, kept, session)
    of_parts = barriers(wrong_AN, alphas_A, parts)
    return [
        {
            "part": number,
            "score": float(np.mean(scores.values[part])),
            "error": float(wrong_AN[[0, -1]][:, part].mean()),
            "middle": float(wrong_AN[points // 2, part].mean()),
            "barrier": barrier,
        }
        for number, (part, barrier) in enumerate(zip(parts, of_parts, strict=True), start=1)
    ]


def wrong_on_line(ends: list[Path], alphas_A: np.ndarray, kept: np.ndarray, session: Session) -> np.ndarray:
    """Which kept samples each network between two runs' students is wrong about, bool A×N, on plain images.

    BatchNorm's statistics are measured anew at each point, the ends among them, on up to 2,048 kept samples.

    Args:
        ends: the runs of w' (α = 0) and w (α = 1).
    """
    split, device = session.data.train, session.accelerator.device
    second, built = (load_model(run / WEIGHTS) for run in ends)
    inputs = place(built, device)
    states = [{name: x.to(device, copy=True) for name, x in b.model.state_dict().items()} for b in (built, second)]
    seen = kept[first_by_hash(key(0, "statistics"), kept, min(len(kept), FOR_STATISTICS))]
    whole = replace(session.place, rank=0, world=1)  # every process needs the same statistics
    logits = student_logits(built.model, inputs, session.accelerator)

    def wrong(batch: Batch) -> Tensor:
        return logits(batch.images).argmax(1) != batch.labels

    wrong_AN = np.zeros((len(alphas_A), len(split)), dtype=bool)
    for alpha, wrong_N in zip(alphas_A, wrong_AN, strict=True):
        built.model.load_state_dict(interpolated(states[0], states[1], float(alpha)))
        batches = plain_batches(split, seen, built.spec, whole)
        with_fresh_statistics(built.model, (inputs(batch.images) for batch in batches), device)
        wrong_N[kept] = predict(wrong, split, kept, built.spec, session.place).cpu().numpy()
    return wrong_AN
