"""From runs that are finished to what each arm will reach for what is left of the budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdprune.config import Config
from kdprune.planning.arms import Arm, Sizes
from kdprune.planning.curve import Curve, Prediction, chances, pooled_noise
from kdprune.planning.pilots import Observation, repeats
from kdprune.planning.price import EVALUATIONS, Price


@dataclass(frozen=True)
class Forecast:
    """What an arm will reach.

    Attributes:
        runs: that say so.
        config: of the run that the budget pays for.
        cost: of that run.
        predicted: by the result's name, `val_top1` and `test_top1`; by the latter alone where the held-out samples are
            those that are set aside.
        chance: that it is the best of all arms.
    """

    arm: Arm
    runs: Sequence[Observation]
    curve: Curve
    config: Config
    cost: float
    predicted: Mapping[str, Prediction]
    chance: float = 0.0

    @property
    def steps(self) -> int:
        steps = self.config.train.steps
        assert steps is not None
        return steps


def forecasts(
    arms: Sequence[Arm],
    found: Mapping[str, Sequence[Observation]],
    prices: Mapping[str, Price],
    sizes: Sizes,
    left: float,
) -> tuple[list[Forecast], dict[str, str]]:
    """What every arm will reach, the best first; and the arms of which nothing can be said, with the reason.

    Args:
        found: finished runs, by arm.
        prices: by arm.
        left: what may be spent on the run.
    """
    noise = pooled_noise(repeats(found), sizes.judging)
    made, unknown = [], {}
    for arm in arms:
        runs, price = found[arm.name], prices[arm.name]
        lengths = len({run.steps for run in runs})
        steps = price.steps_for(left)
        if lengths < 2:
            unknown[arm.name] = f"finished runs of {lengths} lengths, and a curve needs two or more"
        elif steps < 1:
            unknown[arm.name] = "nothing is left for its run"
        else:
            curve = Curve([run.steps for run in runs], [run.top1 for run in runs], sizes.judging, noise)
            config = planned(arm, steps, sizes)
            cost = price.of_run(steps, EVALUATIONS)
            made.append(Forecast(arm, runs, curve, config, cost, _predicted(curve, steps, sizes)))
    if made:
        odds = chances([one.curve.distribution(one.steps) for one in made])
        made = [replace(one, chance=float(chance)) for one, chance in zip(made, odds, strict=True)]
    return sorted(made, key=lambda one: -one.predicted[sizes.judge].median), unknown


def planned(arm: Arm, steps: int, sizes: Sizes) -> Config:
    """The settings of the run that is planned, with the recipe's own seeds."""
    kept = sizes.kept(arm.config)
    config = arm.of_length(steps, kept)
    epochs = steps * config.train.batch_size / kept
    config.train.eval_every = max(arm.config.train.eval_every, math.ceil(epochs / EVALUATIONS))
    return config


def _predicted(curve: Curve, steps: int, sizes: Sizes) -> dict[str, Prediction]:
    predicted = {sizes.judge: curve.predict(steps)}
    if not sizes.by_test and sizes.tested:
        predicted["test_top1"] = curve.predict(steps, sizes.tested)
    return predicted
