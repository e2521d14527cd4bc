"""A plan from its beginning to its end: prices, pilots, curves, and what is written of it.

The design is written before the first pilot is begun, because it follows from times that were measured: a plan that was
stopped goes on with it. The prediction is written once, before the run, and never changed by what the run comes to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from kdprune.config import Config, config_hash, to_dict
from kdprune.data.dataset import open_data
from kdprune.files import write_text
from kdprune.planning.arms import Arm, Sizes
from kdprune.planning.budget import PASSES, Budget
from kdprune.planning.curve import LEVEL
from kdprune.planning.design import REPEATS, Design, check_share, left_for_the_run, make_design
from kdprune.planning.document import FILE, FOLDER, Document, compared, load, save
from kdprune.planning.figure import draw
from kdprune.planning.forecast import Forecast, forecasts
from kdprune.planning.pilots import Observation, is_known, observations, pilot_study, trained
from kdprune.planning.price import Price, cost_of, price_of, shared_needs, with_measured
from kdprune.report.compare import command_for
from kdprune.sweep.conduct import Launcher, Sweep
from kdprune.sweep.estimate import Estimator
from kdprune.sweep.plan import make_plan

log = logging.getLogger("kdprune")

FIGURE, COMMAND = "plan.png", "command.sh"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    Attributes:
        document: the content of plan.json.
        paths: of what was written.
    """

    document: Document
    paths: Sequence[Path]


class Planner:
    """Plans a run.

    Args:
        base: the recipe, with a part set aside to judge by.
        share: of the budget, for pilots.
        threads: that a run will have.

    Raises:
        ValueError: a share that is none; GPU-hours where there is no GPU.
    """

    def __init__(
        self, name: str, base: Config, arms: Sequence[Arm], budget: Budget, share: float, threads: int
    ) -> None:  # fmt: skip
        if budget.on_gpu and not torch.cuda.is_available():
            raise ValueError(f"--budget: {budget.text} given, and there is no GPU here; allowed are a time and passes")
        check_share(share)
        self.name, self.base, self.arms, self.budget, self.share = name, base, list(arms), budget, share
        self.output = Path(base.output)
        self.estimator = Estimator(threads)
        key = [to_dict(base), [[arm.name, config_hash(arm.config)] for arm in arms], dataclasses.astuple(budget), share]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
        self.folder = self.output / FOLDER / f"{name}-{digest}"

    @cached_property
    def sizes(self) -> Sizes:
        config = self.arms[0].config.data
        data = open_data(config, self.base.seed_of("subset"))
        if not (data.train.labels >= 0).all():
            raise ValueError(f"{config.dataset} has no labels: arms cannot be judged")
        tested = 0 if data.test is None else len(data.test)
        return Sizes(len(data.train), len(data.validation), tested, data.tests_by_validation, data.fingerprint)

    @cached_property
    def found(self) -> dict[str, list[Observation]]:
        """Runs that were finished before."""
        return observations(self.output, self.arms, self.sizes)

    @cached_property
    def prices(self) -> dict[str, Price]:
        """Of all arms; without pilots those of the runs that are there, so that nothing need be measured."""
        if not self.share:
            return {arm.name: self._price_of_runs(arm) for arm in self.arms}
        prices = {arm.name: price_of(arm, self.sizes, self.budget, self.estimator) for arm in self.arms}
        begin = min(price.begin for price in prices.values())  # the first that is measured prepares what all need
        return {name: dataclasses.replace(price, begin=begin) for name, price in prices.items()}

    @cached_property
    def design(self) -> Design:
        stored = self._stored()
        if stored is not None:
            return Design(**stored["design"])
        made = trained(self.output / "teachers") | trained(self.output / "records")
        parts = {
            arm.name: {
                id: cost_of(need, self.budget, self.estimator)
                for id, need in shared_needs([arm.of_length(100, self.sizes.kept(arm.config))]).items()
                if config_hash(need.config) not in made
            }
            for arm in self.arms
        }
        return make_design(
            self.budget, self.share, self.prices, parts, lambda name, longest: is_known(self.found[name], longest)
        )

    def words(self) -> str:
        """What is going to be spent before there is a prediction."""
        design, budget = self.design, self.budget
        count = REPEATS * sum(map(len, design.lengths.values()))
        return (
            f"{count} pilots will take about {budget.words(design.pilots)} of {budget.text}, and what they and the run "
            f"are made of {budget.words(design.parts)}"
        )

    def left(self, spent: float) -> float:
        """For the run."""
        return left_for_the_run(self.budget, spent)

    def outcome(self, launcher: Launcher) -> Outcome:
        """Make the pilots, and predict; a plan that was made is found, and compared with its runs.

        Raises:
            ValueError: no arm has enough finished runs.
            Interrupted: by a signal; the same command goes on.
        """
        stored = self._stored()
        if stored is None or stored["state"] != "planned":
            stored = self._planned(launcher)
        else:
            log.info("%s was made before; --name another one plans anew", self.folder)
        document = compared(stored)
        paths = [self.folder / FIGURE, self.folder / COMMAND, save(self.folder, document)]
        return Outcome(document, [path for path in paths if path.exists()])

    def _planned(self, launcher: Launcher) -> Document:
        for name, reason in self.design.dropped.items():
            log.warning("left out: %s: %s", name, reason)
        arms = [arm for arm in self.arms if arm.name in self.design.lengths]
        about = self._about()
        spent = 0.0
        if any(self.design.lengths.values()):
            log.info("%s", self.words())
            spent = self._pilots(arms, launcher, about)
        found = observations(self.output, arms, self.sizes)
        left = self.left(spent)
        prices = {
            name: with_measured(price, seconds_a_step(found.get(name, [])), self.budget)
            for name, price in self.prices.items()
        }
        made, unknown = forecasts(arms, found, prices, self.sizes, left)
        if not made:
            raise ValueError(nothing_predicted(unknown, self.budget, spent, left, self.output))
        draw(made, self.sizes.judge, self.folder / FIGURE)
        document = {
            **about, "state": "planned", "predicted_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "spent": spent,
            "left": left, "recommended": made[0].arm.name, "unknown": {**self.design.dropped, **unknown},
            "arms": [_described(one) for one in made],
        }  # fmt: skip
        write_text(self.folder / COMMAND, f"{document['arms'][0]['command']}\n")
        return document

    def _pilots(self, arms: Sequence[Arm], launcher: Launcher, about: Document) -> float:
        """Make the pilots that are missing; what they have cost, in all attempts."""
        study = pilot_study(self.name, self.base, arms, self.sizes, self.design)
        sweep = Sweep(make_plan(study, 0.5, 1), self.folder, tell=_say)
        with sweep.journal.owned():
            if self._stored() is None:
                save(self.folder, about)
            sweep.conduct(launcher)
        for status in sweep.failed:
            log.warning("%s: %s", status.node.what, status.details.get("error", status.state))
        if self.budget.unit == PASSES:
            return self.design.pilots + self.design.parts
        return sum(entry["seconds"] for entry in sweep.journal.entries() if isinstance(entry.get("seconds"), float))

    def _price_of_runs(self, arm: Arm) -> Price:
        runs = self.found[arm.name]
        if self.budget.unit == PASSES or not runs:
            return price_of(arm, self.sizes, self.budget, self.estimator)
        return with_measured(Price(1.0, 0.0, 0.0), seconds_a_step(runs), self.budget)

    def _stored(self) -> Document | None:
        """What was written before, of the same data: its name may stand for other contents now."""
        if not (self.folder / FILE).exists():
            return None
        stored = load(self.folder)
        if stored.get("data", self.sizes.fingerprint) != self.sizes.fingerprint:
            raise ValueError(
                f"--data.dataset: {self.base.data.dataset} has other contents now than when {self.folder} was planned; "
                "--name another one plans anew"
            )
        return stored

    def _about(self) -> Document:
        budget = {"text": self.budget.text, "amount": self.budget.amount, "unit": self.budget.unit}
        return {
            "state": "pilots", "name": self.name, "output": str(self.output), "budget": budget,
            "pilot_share": self.share, "level": LEVEL, "judged_by": self.sizes.judge, "data": self.sizes.fingerprint,
            "design": dataclasses.asdict(self.design),
        }  # fmt: skip


def seconds_a_step(runs: Sequence[Observation]) -> list[float]:
    """Of the longest runs, in which beginning and end weigh least."""
    longest = max((run.steps for run in runs), default=0)
    return [run.seconds / run.steps for run in runs if run.steps == longest]


def nothing_predicted(unknown: Mapping[str, str], budget: Budget, spent: float, left: float, output: Path) -> str:
    """Why there is no plan, and what would help.

    Args:
        unknown: reasons, by arm.
        spent: by pilots and what they are made of.
        left: for the run; less than nothing where a busy machine took longer than was measured.
    """
    if left <= 0:
        return (
            f"--budget: {budget.text} given, of which the pilots took {budget.words(spent)}, and nothing is left for a "
            f"run; a larger one finds the pilots in {output}, and what they cost is not paid again"
        )
    reasons = "; ".join(f"{name}: {reason}" for name, reason in unknown.items())
    return (
        f"no arm can be predicted from the finished runs in {output} ({reasons}); --pilot_share 0.2 makes some, and "
        "those that failed have said why"
    )


def _described(one: Forecast) -> dict[str, Any]:
    return {
        "name": one.arm.name,
        "steps": one.steps,
        "cost": one.cost,
        "predicted": {name: dataclasses.asdict(prediction) for name, prediction in one.predicted.items()},
        "chance": min(1.0, one.chance),
        "command": command_for(one.config),
        "config_hash": config_hash(one.config),
        "runs": [dataclasses.asdict(run) for run in one.runs],
        "result": None,
    }


def _say(status: Any) -> None:
    if status is not None:
        error = f" ({status.details['error']})" if "error" in status.details else ""
        log.info("%s: %s%s", status.state, status.node.what, error)
