"""From a study to what is to be made, in which order: its runs, what they share, the runs that choose settings."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdprune.messages import about
from kdprune.pipeline.needs import Need, needs_of_run
from kdprune.pipeline.train import check_settings
from kdprune.sweep.graph import Graph, Node, nodes_of, shared
from kdprune.sweep.study import Run, Study, words
from kdprune.sweep.tuning import Arm, arms, chosen

log = logging.getLogger("kdprune")


@dataclass
class Plan:
    """What a sweep is going to do.

    Attributes:
        arms: of the study.
        graph: of all that is made.
        runs: by the id of their node.
        arm_of: where settings are tuned, the arm of each final run by the id of its node.
        follows: whether what runs are made of, such as teachers, changes with what is tuned.
    """

    study: Study
    arms: Sequence[Arm]
    graph: Graph = field(default_factory=Graph)
    runs: dict[str, Run] = field(default_factory=dict)
    arm_of: dict[str, Arm] = field(default_factory=dict)
    follows: bool = False

    @property
    def finals(self) -> list[tuple[str, Run]]:
        """The runs of the study with the ids of their nodes; one that stands at several coordinates, at each."""
        return [(node_id(self.study, run), run) for arm in self.arms for run in arm.runs]


def make_plan(study: Study, val_fraction: float, seeds: int) -> Plan:
    """Plan a study.

    Args:
        val_fraction, seeds: see `arms`.

    Raises:
        ValueError: what can be seen to be wrong with any of the runs, with where it stands on the axes.
    """
    plan = Plan(study, arms(study, val_fraction, seeds))
    level = log.level
    log.setLevel(logging.ERROR)  # what a run warns of stands in its log
    try:
        needs = _needs(plan)
    finally:
        log.setLevel(level)
    parts, needed = shared(needs)
    for node in nodes_of(parts):
        plan.graph.add(node)
    for arm in plan.arms:
        for trial in arm.trials:
            for run in trial.runs:
                what = f"tuning {words({**trial.values, **run.coordinates})}"
                plan.graph.add(Node(run.id, what, needs=needed[run.id]))
                plan.runs[run.id] = run
    for arm in plan.arms:
        tried = frozenset(run.id for trial in arm.trials for run in trial.runs)
        for run in arm.runs:
            id = node_id(study, run)
            plan.graph.add(Node(id, words(run.coordinates) or "run", needs=needed[id], after=tried - {id}))
            plan.runs[id] = run
            if arm.trials:
                plan.arm_of[id] = arm
    return plan


def node_id(study: Study, run: Run) -> str:
    """Of a run of the study: which run that is, is known only when its settings are chosen."""
    return f"final-{run.id}" if study.tuned else run.id


def _needs(plan: Plan) -> dict[str, list[Need]]:
    """Of every run, by the id of its node."""
    found: dict[str, list[Need]] = {}
    for arm in plan.arms:
        for trial in arm.trials:
            for run in trial.runs:
                found[run.id] = _checked(run)
        for run in arm.runs:
            found[node_id(plan.study, run)] = _whatever_is_chosen(plan, run)
    return found


def _whatever_is_chosen(plan: Plan, run: Run) -> list[Need]:
    """What a run needs for any choice of its tuned settings; nothing where that depends on the choice."""
    tuned = plan.study.tuned
    choices = [dict(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())]
    needs = [_checked(chosen(run, choice)) for choice in choices]
    if all([need.id for need in one] == [need.id for need in needs[0]] for one in needs):
        return needs[0]
    plan.follows = True
    return []


def _checked(run: Run) -> list[Need]:
    with about(words(run.coordinates)):
        check_settings(run.config)
        return needs_of_run(run.config)
