"""What an arm costs: a step, an evaluation, beginning a run, and what it is made of."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kdprune.config import Config
from kdprune.pipeline.needs import Need, needs_of_run
from kdprune.planning.arms import Arm, Sizes
from kdprune.planning.budget import PASSES, Budget
from kdprune.sweep.estimate import Estimate, Estimator

EVALUATIONS = 10  # of the planned run, at most
_PROBED = 100  # steps


@dataclass(frozen=True)
class Price:
    """Of the runs of an arm, in the unit of the budget.

    Attributes:
        step: of one, with its teachers.
        evaluation: of the student, on all samples that are held out or set aside.
        begin: of a run that does nothing.
    """

    step: float
    evaluation: float
    begin: float

    def of_run(self, steps: int, evaluations: int = 1) -> float:
        return self.begin + steps * self.step + evaluations * self.evaluation

    def steps_for(self, amount: float) -> int:
        """Steps of the longest run that an amount pays for; below 1 where it pays for none."""
        return int((amount - self.begin - EVALUATIONS * self.evaluation) // self.step)


def price_of(arm: Arm, sizes: Sizes, budget: Budget, estimator: Estimator) -> Price:
    """What runs of an arm cost; times are measured by a few real steps."""
    config = arm.of_length(_PROBED, sizes.kept(arm.config))
    teachers, judged = len(config.teacher.models), sizes.tested + (0 if sizes.by_test else sizes.judging)
    if budget.unit == PASSES:
        return Price((2 + teachers) * config.train.batch_size, judged, 0.0)
    once, twice = (estimator.of_training(_never_evaluated(config, steps)) for steps in (_PROBED, 2 * _PROBED))
    step = (twice.seconds - once.seconds) / _PROBED
    evaluation = (once.seconds - _PROBED * step) * judged / max(1, sizes.tested)
    return Price(step, evaluation, estimator.beside(config))


def shared_needs(configs: Iterable[Config]) -> dict[str, Need]:
    """What runs are made of that is made once: trainings and observations, by their ids."""
    found: dict[str, Need] = {}
    waiting = [need for config in configs for need in needs_of_run(config)]
    while waiting:
        need = waiting.pop()
        waiting += need.needs
        if need.kind != "targets":  # which a step pays for
            found[need.id] = need
    return found


def cost_of(need: Need, budget: Budget, estimator: Estimator) -> float:
    """What it costs to make something that runs share."""
    estimate: Estimate = estimator.of_need(need)
    return float(estimate.passes if budget.unit == PASSES else estimate.seconds)


def with_measured(price: Price, seconds_a_step: Sequence[float], budget: Budget) -> Price:
    """The price with the steps that pilots took in fact: the median, since other work makes single runs longer."""
    if budget.unit == PASSES or not seconds_a_step:
        return price
    return replace(price, step=statistics.median(seconds_a_step))


def _never_evaluated(config: Config, steps: int) -> Config:
    """But at its end."""
    return replace(config, train=replace(config.train, steps=steps, eval_every=10**9))
