"""Plans: budgets, arms of any length, pilots within their share, and a whole one on the digits, stopped on the way."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import command, config_of, plain, said_by, start, train
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune.cli.commands import parse
from kdprune.cli.plan import unused
from kdprune.cli.unused import warn_of_unused
from kdprune.config import Config, config_hash, from_dict
from kdprune.pipeline.recipes import teacher_training
from kdprune.planning import budget as budgets
from kdprune.planning import pilots
from kdprune.planning import planner as planning
from kdprune.planning.arms import Sizes, identity, read_arms
from kdprune.planning.budget import Budget
from kdprune.planning.design import (
    LENGTHS,
    MARGIN,
    RATIO,
    REPEATS,
    SHORTEST,
    Design,
    left_for_the_run,
    make_design,
    pilots_cost,
)  # fmt: skip
from kdprune.planning.document import compared, load, save, tally
from kdprune.planning.forecast import forecasts
from kdprune.planning.pilots import Observation, is_known, pilot_study
from kdprune.planning.planner import Planner, nothing_predicted, seconds_a_step
from kdprune.planning.price import EVALUATIONS, Price, price_of, shared_needs, with_measured
from kdprune.runs.reading import read_config
from kdprune.sweep.estimate import Estimate, Estimator, Measured
from kdprune.sweep.task import Event, Task, perform
from kdprune.training.interrupt import Interrupted

SIZES = Sizes(1347, 135, 450, False, "x")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("2h", 7200, "seconds"), ("90 min", 5400, "seconds"), ("45s", 45, "seconds"), ("1d", 86400, "seconds"),
     ("1.5 hours", 5400, "seconds"), ("5e7 passes", 5e7, "passes"), ("400_000 passes", 4e5, "passes"),
     ("3 gpu-hours", 10800, "seconds"), ("0.5 GPU hours", 1800, "seconds")],
)  # fmt: skip
def test_a_budget_is_a_time_or_passes(text, amount, unit):
    parsed = budgets.parse(text)
    assert (parsed.amount, parsed.unit, parsed.on_gpu) == (amount, unit, "gpu" in text.lower())


@pytest.mark.parametrize(
    ("text", "amount", "words"),
    [("2h", 7200.0, "2 h"), ("2h", 90.0, "1.5 min"), ("3 gpu-hours", 0.5, "0.5 s"), ("2h", 86400.0, "24 h"),
     ("5e7 passes", 12_345.4, "12,345 passes"), ("5e7 passes", 5e7, "5e+07 passes")],
)  # fmt: skip
def test_an_amount_is_said_in_units_for_a_person(text, amount, words):
    assert budgets.parse(text).words(amount) == words


@pytest.mark.parametrize(
    "text", [None, "", "2", "h", "2 fortnights", "-1h", "0s", "nan h", "1e400 h", "2h 30min", "1e h"]
)
def test_what_is_no_budget_is_answered_with_what_is(text):
    with pytest.raises(ValueError, match=r"--budget.*(gpu-hours).*passes"):
        budgets.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_budget_or_a_mistake(text):
    said = "--budget: "
    try:
        amount = budgets.parse(text).amount
    except ValueError as error:
        amount, said = 1.0, str(error)
    assert 0 < amount < math.inf
    assert said.startswith("--budget: ")


PRICES = st.builds(Price, st.floats(1e-4, 2), st.floats(0, 3), st.floats(0, 5))


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), PRICES, min_size=1, max_size=8),
    st.floats(1, 1e6),
    st.floats(0.01, 0.5),
    st.booleans(),
)
def test_pilots_stay_within_their_share_or_the_least_budget_is_named(prices, amount, share, timed):
    budget = Budget("this", amount, "seconds" if timed else "passes")
    try:
        design = make_design(budget, share, prices, {name: {} for name in prices})
    except ValueError:
        return
    cost = sum(pilots_cost(prices[name], lengths) for name, lengths in design.lengths.items())
    assert cost <= design.pilots <= share * amount * (1 + 1e-9)
    for name, lengths in design.lengths.items():
        assert len(lengths) == LENGTHS
        assert lengths == sorted(lengths)
        assert lengths[0] >= SHORTEST
        steps = prices[name].steps_for(left_for_the_run(budget, design.pilots))
        assert steps > lengths[-1]
        spent = design.pilots + prices[name].of_run(steps, EVALUATIONS)
        assert spent <= amount * (1 - MARGIN * timed) * (1 + 1e-9)
    assert set(design.lengths) | set(design.dropped) == set(prices)


def test_the_least_budget_that_a_message_names_is_enough():
    prices = {"a": Price(0.02, 0.5, 1.5), "b": Price(0.05, 0.5, 1.5)}
    with pytest.raises(ValueError, match=r"30s given; with 2 arms the least is .*10, 30, 90") as error:
        make_design(budgets.parse("30s"), 0.2, prices, {"a": {}, "b": {}})
    least = str(error.value).split("the least is ")[1].split(",")[0]
    assert make_design(budgets.parse(least), 0.2, prices, {"a": {}, "b": {}}).lengths["b"][0] == 10


def test_an_arm_whose_teacher_is_beyond_the_budget_is_left_out_and_others_stay():
    prices = dict.fromkeys(["none", "small", "large"], Price(0.01, 0.1, 0.5))
    parts = {"none": {}, "small": {"t1": 100.0}, "large": {"t1": 100.0, "t2": 2000.0}}
    design = make_design(budgets.parse("1h"), 0.2, prices, parts)
    assert set(design.lengths) == {"none", "small"}
    assert "35" in design.dropped["large"], "2,100 s"
    assert design.parts == 100, "what two arms are made of counts once"
    with pytest.raises(ValueError, match=r"--budget.*the least is"):
        make_design(budgets.parse("1h"), 0.2, {"large": prices["large"]}, {"large": parts["large"]})


def test_what_arms_are_made_of_leaves_less_for_the_run():
    budget, prices = budgets.parse("1400 passes"), {"a": Price(1.0, 0.0, 0.0)}
    assert make_design(budget, 0.5, prices, {"a": {}}).lengths == {"a": [26, 80, 242]}, "696 passes; 704 are left"
    with pytest.raises(ValueError, match=r"--budget.* 1,196 passes .*too little for a run"):
        make_design(budget, 0.5, prices, {"a": {"a teacher": 500.0}})


def test_an_arm_of_which_enough_is_known_gets_no_pilots():
    prices = dict.fromkeys("ab", Price(0.01, 0.1, 0.5))
    design = make_design(budgets.parse("1h"), 0.2, prices, {"a": {}, "b": {}}, lambda name, longest: name == "a")
    assert design.lengths["a"] == []
    assert design.pilots == pilots_cost(prices["b"], design.lengths["b"])
    runs = [Observation(steps, 0.5, 1.0, "") for steps in (10, 30, 90) for _ in range(REPEATS)]
    assert is_known(runs, 90)
    assert not is_known(runs, 90 * RATIO)
    assert not is_known(runs[1:], 90)


@pytest.mark.parametrize("share", [-0.1, 0.6, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"--pilot_share: .*\[0, 0.5\]"):
        make_design(budgets.parse("1h"), share, {"a": Price(1, 1, 1)}, {"a": {}})


def recipe(**options: Any) -> Config:
    usual = {"teacher.models": ["mlp_64"], "train.steps": None, "train.epochs": 20.0, "data.dataset": "digits"}
    return config_of(Path("x"), {**usual, **options})


def arms_of(base: Config, **sections: Any) -> list[Any]:
    return read_arms("x", base, sections)[1]


def test_without_axes_keep_fractions_are_tried_with_and_without_the_teacher_and_an_alpha_of_1_where_it_is_far():
    tried = [
        (a.config.subset.keep_fraction, bool(a.config.teacher.models), a.config.distill.alpha)
        for a in arms_of(recipe())
    ]
    policy = "linear(1.0, 0.5)"
    expected = [(f, taught, policy) for f in (0.1, 0.25, 0.5, 1.0) for taught in (False, True)]
    assert sorted(map(str, tried)) == sorted(map(str, [*expected, (0.5, True, 1.0), (1.0, True, 1.0)]))
    assert len(arms_of(recipe(**{"teacher.models": []}))) == 4


def test_arms_without_a_teacher_are_one_whatever_alpha_says():
    grid = {"teacher.models": [None, "mlp_64"], "distill.alpha": [0.5, 1.0]}
    assert len(arms_of(recipe(), grid=grid)) == 3


@pytest.mark.parametrize(
    ("grid", "words"),
    [({"seed": [0, 1]}, "grid.seed.*seeds"), ({"train.epochs": [1, 2]}, "grid.train.epochs.*how long"),
     ({"train.steps": [1, 2]}, "how long"), ({"data.dataset": ["a", "b"]}, "comparable"),
     ({"distill.alpha": ["search", 1]}, "distill.alpha: search"), ({"subset.keep": [1]}, "subset.keep_fraction"),
     ({"subset.dynamic": ["rs2", None]}, "subset.dynamic")],
)  # fmt: skip
def test_axes_that_are_none_of_a_plan_are_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        arms_of(recipe(), grid=grid)


@settings(max_examples=20)
@given(st.integers(10, 5000), st.integers(1, 5), st.sampled_from(["subset", "full"]), st.booleans())
def test_a_schedule_shrinks_with_its_run_and_a_teacher_does_not(steps, repeat, budget, by_steps):
    base = recipe(**{
        "train.sched": "multistep", "train.decay_milestones": [10.0, 15.0], "train.warmup_epochs": 2.0,
        "train.budget": budget, "train.steps": 400 if by_steps else None,
    })  # fmt: skip
    arm = arms_of(base, grid={"subset.keep_fraction": [0.25]})[0]
    kept = SIZES.kept(arm.config)
    run = arm.of_length(steps, kept, repeat)
    epochs, before = steps * 64 / kept, 400 * 64 / kept if by_steps else 20.0
    assert run.train.steps == steps
    assert run.train.warmup_epochs / epochs == pytest.approx(2 / before)
    assert [one / epochs for one in run.train.decay_milestones] == pytest.approx([10 / before, 15 / before])
    taught, original = teacher_training(run), teacher_training(base)
    for name in ("steps", "warmup_epochs", "decay_milestones", *(() if by_steps else ("epochs",))):
        assert getattr(taught, name) == getattr(original, name)
    assert run.seed_of("subset") == run.seed_of("teacher") == base.seed
    assert run.seed_of("weights") == run.seed_of("data") == base.seed + repeat
    assert run.data.val_fraction == 0.1, "arms are judged on a part of the training set"


def test_runs_of_an_arm_are_known_whatever_their_length_and_seeds_and_those_of_others_are_not():
    grid = {"subset.keep_fraction": [0.25, 1.0], "teacher.models": [None, "mlp_64"], "distill.alpha": [0.5, 1.0]}
    base = recipe(**{"train.warmup_epochs": 2.0})
    arms = arms_of(base, grid=grid)
    assert len({arm.identity(SIZES.kept(arm.config)) for arm in arms}) == len(arms) == 6
    for arm in arms:
        kept = SIZES.kept(arm.config)
        known = arm.identity(kept)
        assert {identity(arm.of_length(s, kept, r), kept) for s in (10, 33, 1000) for r in range(2)} == {known}
        as_written = arm.config  # the recipe itself, by epochs
        assert identity(as_written, kept) == known
        longer_warmup = replace(as_written, train=replace(as_written.train, warmup_epochs=9.0))
        other_rate = replace(as_written, train=replace(as_written.train, lr=0.3))
        # Other samples, and others that judge: no repetition of what the plan is about to run.
        other_samples = replace(as_written, seeds=replace(as_written.seeds, subset=5))
        assert known not in [identity(one, kept) for one in (longer_warmup, other_rate, other_samples)]
        same_samples = replace(as_written, seed=5, seeds=replace(as_written.seeds, subset=as_written.seed))
        assert identity(same_samples, kept) == known


def test_runs_whose_keys_differ_in_length_and_seeds_alone_are_of_one_kind():
    def kind(steps: int = 100, lr: float = 0.1, warmup: float = 0.1, **changes: Any) -> str | None:
        epochs = steps * 64 / 300
        train = {"steps": steps, "epochs": 30.0, "lr": lr, "warmup_epochs": warmup * epochs, "decay_milestones": []}
        key = {"train": train, "seeds": {"data": steps}, "subset": "a", **changes}
        return pilots._kind({"key": key, "epochs": epochs, "kept": 300})

    assert kind() == kind(steps=333) is not None
    for other in (kind(lr=0.2), kind(warmup=0.2), kind(subset="b"), kind(teachers=["t"])):
        assert other not in (kind(), None)
    assert pilots._kind({"key": 3}) is None


def test_pilots_are_the_runs_of_a_study():
    base = recipe()
    study, arms = read_arms("x", base, {"grid": {"subset.keep_fraction": [0.25], "teacher.models": [None, "mlp_64"]}})
    lengths = {arm.name: [10, 30, 90] for arm in arms}
    design = replace(
        make_design(
            budgets.parse("1h"), 0.2, dict.fromkeys(lengths, Price(0.01, 0.1, 0.5)), {name: {} for name in lengths}
        ),
        lengths=lengths,
    )
    runs = pilot_study("x", study.base, arms, SIZES, design).runs()
    wanted = [a.of_length(s, SIZES.kept(a.config), r) for a in arms for s in (10, 30, 90) for r in range(2)]
    assert [config_hash(run.config) for run in runs] == [config_hash(config) for config in wanted]
    assert len({run.id for run in runs}) == 12


def forecast(found: dict[str, list[Observation]], left: float, sizes: Sizes = SIZES) -> Any:
    arms = arms_of(recipe(), grid={"teacher.models": [None, "mlp_64"], "subset.keep_fraction": [1.0]})
    names = {"plain": arms[0].name, "taught": arms[1].name}
    prices = {arm.name: Price(128.0 + 64 * bool(arm.config.teacher.models), 585.0, 0.0) for arm in arms}
    return forecasts(arms, {names[key]: runs for key, runs in found.items()}, prices, sizes, left)


def runs_of(*top1: float) -> list[Observation]:
    return [Observation(10 * 3 ** (n // 2), value, 1.0, "") for n, value in enumerate(top1)]


WEAK, STRONG = runs_of(0.2, 0.22, 0.4, 0.41, 0.6, 0.61), runs_of(0.3, 0.32, 0.6, 0.61, 0.85, 0.86)


def test_the_best_arm_is_first_and_its_run_is_what_the_budget_pays_for():
    made, unknown = forecast({"plain": WEAK, "taught": STRONG}, 200_000.0)
    assert not unknown
    assert [bool(one.config.teacher.models) for one in made] == [True, False]
    for one in made:
        price = 128 + 64 * bool(one.config.teacher.models)
        assert one.cost <= 200_000 < one.cost + price
        assert one.config.train.steps == one.steps
        assert one.config.seeds.weights is None, "the recipe's own seed"
        evaluations = one.steps * 64 / SIZES.kept(one.config) / one.config.train.eval_every
        assert evaluations <= EVALUATIONS
        assert set(one.predicted) == {"val_top1", "test_top1"}
    assert sum(one.chance for one in made) == pytest.approx(1)
    assert made[0].chance > 0.8


def test_where_the_part_that_judges_is_all_that_is_held_out_there_is_one_prediction():
    made, _ = forecast({"plain": WEAK, "taught": STRONG}, 200_000.0, replace(SIZES, by_test=True))
    assert [set(one.predicted) for one in made] == [{"test_top1"}] * 2


def test_an_arm_without_finished_pilots_is_left_out_with_the_reason():
    made, unknown = forecast({"plain": WEAK, "taught": STRONG[:1]}, 200_000.0)
    assert len(made) == 1
    assert "two or more" in next(iter(unknown.values()))
    assert "nothing is left" in next(iter(forecast({"plain": WEAK, "taught": STRONG}, 100.0)[1].values()))


class Measuring:
    """An estimator by whose clock a step takes 2 ms, with a teacher 3, and an evaluation of the held-out part 0.9 s."""

    def of_training(self, config: Config) -> Estimate:
        assert config.train.eval_every > 10**6, "one evaluation, at the end"
        return Estimate((config.train.steps or 0) * (0.003 if config.teacher.models else 0.002) + 0.9)

    def beside(self, config: Config) -> float:
        return 1.5


@pytest.mark.parametrize("taught", [False, True])
def test_a_price_is_told_apart_into_steps_and_evaluations(taught):
    (arm,) = arms_of(recipe(), grid={"teacher.models": ["mlp_64" if taught else None]})
    timed = price_of(arm, SIZES, budgets.parse("1h"), Measuring())  # type: ignore[arg-type]
    assert (timed.step, timed.begin) == (pytest.approx(0.003 if taught else 0.002), 1.5)
    assert timed.evaluation == pytest.approx(0.9 * (450 + 135) / 450), "the part that judges is evaluated, too"
    counted = price_of(arm, SIZES, budgets.parse("1e6 passes"), Measuring())  # type: ignore[arg-type]
    assert counted == Price((2 + taught) * 64, 450 + 135, 0.0)
    assert with_measured(timed, [0.1, 0.2, 9.0], budgets.parse("1h")).step == 0.2
    assert with_measured(timed, [0.1, 0.3], budgets.parse("1h")).step == pytest.approx(0.2), "of two, neither"
    assert with_measured(counted, [0.1, 0.2, 9.0], budgets.parse("1e6 passes")) == counted


@given(PRICES, st.floats(1, 1e5))
def test_the_longest_run_that_is_paid_for_is_paid_for_and_no_longer_one(price, amount):
    steps = price.steps_for(amount)
    if steps >= 1:
        assert price.of_run(steps, EVALUATIONS) <= amount * (1 + 1e-9)
    assert price.of_run(steps + 2, EVALUATIONS) > amount


# --- a whole plan ---------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "data": {"augment": "crop(1)", "dataset": "digits"},
    "student": {"model": "mlp_64"},
    "teacher": {"models": "mlp_64", "targets": "cached", "train": {"steps": 20}},
    "train": {"batch_size": 64, "lr": 0.1, "precision": "no", "epochs": 10},
}
GRID = {"subset.keep_fraction": [1.0], "teacher.models": [None, "mlp_64"]}
BUDGET = "300000 passes"


@dataclass
class Here:
    """A launcher that does tasks in this process; at the task of a number, it is interrupted."""

    stop_at: int | None = None
    done: list[Task] = field(default_factory=list)
    at_once: int = 1
    threads: int = 1
    remembered: tuple[str, ...] = ()
    _events: list[Event] = field(default_factory=list)

    @property
    def free(self) -> int:
        return 1 - len(self._events)

    def start(self, task: Task) -> None:
        if len(self.done) == self.stop_at:
            raise Interrupted("stopped")
        self.done.append(task)
        self._events.append(perform(task, lambda event: None))

    def events(self, timeout: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        pass


def planner(output: Path, share: float = 0.4, budget: str = BUDGET, name: str = "x", **changes: Any) -> Planner:
    base = from_dict({**TINY, **changes, "output": str(output)})
    study, arms = read_arms(name, base, {"grid": GRID})
    return Planner(name, study.base, arms, budgets.parse(budget), share, 1)


def test_no_arm_pays_for_what_the_first_one_that_is_measured_has_prepared(tmp_path, monkeypatch):
    begins = iter([9.0, 2.0])
    monkeypatch.setattr(planning, "price_of", lambda *about: Price(1.0, 0.5, next(begins)))
    assert [price.begin for price in planner(tmp_path, budget="1h").prices.values()] == [2.0, 2.0]


def test_steps_are_timed_by_the_longest_runs():
    runs = [Observation(10, 0.5, 100.0, ""), Observation(90, 0.5, 180.0, ""), Observation(90, 0.5, 90.0, "")]
    assert seconds_a_step(runs) == [2.0, 1.0]
    assert seconds_a_step([]) == []


@pytest.mark.parametrize(("budget", "spent"), [("1h", 3.0 + 4.0), ("1e6 passes", 50.0 + 7.0)])
def test_pilots_are_paid_for_with_what_they_are_made_of_and_with_attempts_that_failed(
    tmp_path, monkeypatch, budget, spent
):
    class Conducted:
        failed = ()

        def __init__(self, *about: Any, **more: Any) -> None:
            self.journal = self

        def owned(self) -> Any:
            return contextlib.nullcontext()

        def conduct(self, launcher: Any) -> None:
            pass

        def entries(self) -> list[dict[str, Any]]:
            return [{"state": "failed", "seconds": 3.0}, {"state": "finished", "seconds": 4.0}, {"state": "begun"}]

    monkeypatch.setattr(planning, "Sweep", Conducted)
    plan = planner(tmp_path, budget=budget)
    plan.__dict__["design"] = Design({arm.name: [10, 30, 90] for arm in plan.arms}, {}, pilots=50.0, parts=7.0)
    assert plan._pilots(plan.arms, Here(), plan._about()) == spent


def test_a_teacher_that_is_there_is_not_paid_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Estimator, "_steps", lambda self, config: Measured(1e-3, 0.0, 1000, 0.0))
    plan = planner(tmp_path)
    assert plan.design.parts == 2 * 20 * 64 + 2 * 450, "20 steps of 64, which begin two epochs of 1,212 samples"
    teachers = shared_needs([arm.of_length(100, plan.sizes.kept(arm.config)) for arm in plan.arms]).values()
    there = {config_hash(need.config) for need in teachers}
    monkeypatch.setattr(planning, "trained", lambda folder: there if folder.name == "teachers" else set())
    assert planner(tmp_path).design.parts == 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    launcher = Here()
    return planner(output).outcome(launcher), launcher, output


def predictions(document: dict[str, Any]) -> list[Any]:
    return [[arm["name"], arm["steps"], arm["predicted"], arm["chance"]] for arm in document["arms"]]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_plan_names_a_run_within_its_budget_and_what_it_will_reach(undisturbed):
    outcome, launcher, _ = undisturbed
    document = outcome.document
    short = [task for task in launcher.done if isinstance(task.work, Config)]
    assert len(short) == 2 * LENGTHS * REPEATS
    assert len(launcher.done) == len(short) + 1, "and one teacher for all of them"
    assert {path.name for path in outcome.paths} == {"plan.json", "plan.png", "command.sh"}
    assert load(outcome.paths[0].parent) == json.loads((outcome.paths[0].parent / "plan.json").read_text())
    assert document["recommended"] == document["arms"][0]["name"]
    assert sum(arm["chance"] for arm in document["arms"]) == pytest.approx(1)
    for arm in document["arms"]:
        assert document["spent"] + arm["cost"] <= 300_000
        assert arm["steps"] > max(run["steps"] for run in arm["runs"])
        assert arm["result"] is None
        for predicted in arm["predicted"].values():
            assert predicted["low"] < predicted["median"] < predicted["high"]
        for run in arm["runs"]:
            summary = json.loads((Path(run["run"]) / "summary.json").read_text())
            assert run["top1"] == summary["val_top1"], "never by held-out data"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_plan_that_was_stopped_goes_on_to_the_same_prediction(undisturbed, tmp_path):
    with pytest.raises(Interrupted):
        planner(tmp_path).outcome(Here(stop_at=5))
    (file,) = (tmp_path / "plans").glob("*/plan.json")
    assert json.loads(file.read_text())["state"] == "pilots"
    status, _, err = said_by(["plan", "--check", file.parent])
    assert (status, "no prediction yet" in err) == (2, True)
    again = Here()
    assert predictions(planner(tmp_path).outcome(again).document) == predictions(undisturbed[0].document)
    third = Here()
    assert predictions(planner(tmp_path).outcome(third).document) == predictions(undisturbed[0].document)
    assert third.done == [], "a plan that was made is found"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_finished_runs_of_the_recipe_are_pilots_that_cost_nothing(undisturbed):
    _, _, output = undisturbed
    launcher = Here()
    outcome = planner(output, share=0.0, name="free").outcome(launcher)
    assert launcher.done == []
    assert outcome.document["spent"] == 0
    first = undisturbed[0].document
    assert {arm["name"]: arm["runs"] for arm in outcome.document["arms"]} == {
        arm["name"]: arm["runs"] for arm in first["arms"]
    }
    other_rate = {"train": {**TINY["train"], "lr": 0.05}}
    with pytest.raises(ValueError, match=r"no arm can be predicted.*--pilot_share"):
        planner(output, share=0.0, **other_rate).outcome(launcher)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_run_is_compared_with_its_prediction_which_stays(undisturbed):
    outcome, _, output = undisturbed
    folder = outcome.paths[0].parent
    before = predictions(load(folder))
    status, out, _ = said_by(["plan", "--check", folder])
    assert status == 1
    assert "kdprune train" in out
    assert "none of their runs" in said_by(["plan", "--history", f"--output={output}"])[1]
    words = shlex.split(outcome.document["arms"][0]["command"])
    assert words == shlex.split((folder / "command.sh").read_text())
    assert said_by(words[1:])[0] == 0
    status, out, _ = said_by(["plan", "--check", folder])
    assert status == 0
    content = load(folder)
    assert predictions(content) == before
    (result,) = [arm["result"] for arm in content["arms"] if arm["result"] is not None]
    summary = json.loads((Path(result["run"]) / "summary.json").read_text())
    for name in ("val_top1", "test_top1"):
        predicted = content["arms"][0]["predicted"][name]
        assert result["reached"][name] == summary[name]
        assert result["error"][name] == summary[name] - predicted["median"]
        assert result["held"][name] == (predicted["low"] <= summary[name] <= predicted["high"])
        assert f"{100 * summary[name]:.2f}" in out
    counts = tally([content])
    assert counts["test_top1"]["runs"] == counts["test_top1"]["recommended"] == 1
    out = said_by(["plan", "--history", f"--output={output}"])[1]
    assert f"held for {counts['val_top1']['held']} of 1 runs" in out
    # Another arm's prediction would profit from this run, so the plan stands; the same command shows the result.
    assert predictions(planner(output).outcome(Here()).document) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--budget 1h --distill.alpha search", "--distill.alpha"),
        ("--data.dataset digits", "--budget: none given"),
        ("--budget 2parsecs", "unknown unit 'parsecs'"),
        ("--budget 1h --pilot_share 2", r"--pilot_share"),
        ("--budget 1h --tune.train.lr 0.1,0.2", "--tune"),
        ("--budget 1h --grid.train.lrr 0.1", "train.lr"),
        ("--budget 1h --grid.seed 0,1", "grid.seed"),
        ("--check /no/such/plan", "/no/such/plan"),
        ("--budget 1h --name plans", "--name"),
    ],
)
def test_mistakes_are_answered_before_any_work(tmp_path, line, words):
    status, _, err = said_by(["plan", f"--output={tmp_path}", *shlex.split(line)])
    assert status == 2
    assert words in plain(err)
    assert not list(tmp_path.iterdir())


def test_more_pilots_at_a_time_than_cores_are_warned_of(tmp_path):
    line = f"plan --data.dataset digits --output {tmp_path} --pilot_share 0 --dry_run --jobs 999"
    status, _, said = said_by([*line.split(), "--budget", "1e6 passes"])
    assert status == 0, said
    assert "--jobs: 999 given, and there are" in plain(said)


@pytest.mark.parametrize(
    ("line", "names", "reason"),
    [
        ("--history --budget 2h --jobs 2 --pilot_share 0.1 --dry_run --check x --grid.train.lr 0.1,0.2 --train.lr 0.3",
         ["budget", "jobs", "pilot_share", "dry_run", "check", "grid", "train.lr"], "--history only reads"),
        ("--check x --budget 2h --jobs 2 --output y --seed 3", ["budget", "jobs", "output", "seed"], "--check only"),
        ("--history --output y", [], ""),
        ("--data.dataset digits --budget 2h --jobs 2 --pilot_share 0.1", [], ""),
    ],
)  # fmt: skip
def test_what_looking_back_has_no_use_for_is_said(caplog, line, names, reason):
    _, options = parse(["plan", *line.split()])
    warn_of_unused(options, unused(options.typed))
    said = caplog.messages[0] if caplog.messages else ""
    before, _, after = said.partition(": ")
    assert {f"--{name}" for name in names} == set(re.findall(r"--[\w.]+", before))
    assert reason in after


def test_a_plan_is_of_the_data_that_it_was_made_for_whatever_its_name_stands_for_now(tmp_path):
    summary, path = train(tmp_path, {"train.steps": 3})
    predicted = {"test_top1": {"median": 0.5, "low": 0.4, "high": 0.6}}
    arm = {"name": "x", "steps": 3, "config_hash": config_hash(read_config(path)), "command": "", "chance": 1.0,
           "predicted": predicted, "result": None}  # fmt: skip
    content = {"state": "planned", "budget": {}, "level": 0.9, "output": str(tmp_path), "arms": [arm],
               "recommended": "x", "design": {"lengths": {}, "dropped": {}, "pilots": 0, "parts": 0}}  # fmt: skip
    run_on = {data: compared({**content, "data": data})["arms"][0]["result"] for data in ("f" * 64, None)}
    assert run_on["f" * 64] is None, "a run on other contents is not what was predicted"
    assert (
        run_on[None] == compared({**content, "data": summary["dataset_fingerprint"]})["arms"][0]["result"] is not None
    )
    again = planner(tmp_path)
    save(again.folder, {**content, "data": "f" * 64})
    with pytest.raises(ValueError, match=r"--data\.dataset: digits has other contents.*--name"):
        again.outcome(Here())


def test_an_interval_holds_from_its_low_to_its_high_end(tmp_path):
    summary, path = train(tmp_path, {"train.steps": 3})
    top1 = summary["test_top1"]
    for low, high, held in ((-0.1, 0.1, True), (0.0, 0.0, True), (0.01, 0.1, False), (-0.1, -0.01, False)):
        predicted = {"test_top1": {"low": top1 + low, "median": top1 + (low + high) / 2, "high": top1 + high}}
        arm = {"name": "x", "steps": 3, "config_hash": config_hash(read_config(path)), "predicted": predicted,
               "result": None}  # fmt: skip
        (found,) = compared({"output": str(tmp_path), "arms": [arm]})["arms"]
        assert found["result"]["held"] == {"test_top1": held}
        assert found["result"]["error"] == {"test_top1": pytest.approx(-(low + high) / 2)}, "reached less predicted"


def test_intervals_that_held_are_counted_of_all_arms_and_of_those_that_were_recommended():
    def arm(name: str, *held: bool) -> dict[str, Any]:
        return {"name": name, "result": {"held": {"test_top1": held[0]}} if held else None}

    plans = [
        {"state": "planned", "recommended": "a", "arms": [arm("a", True), arm("b", False), arm("c")]},
        {"state": "planned", "recommended": "b", "arms": [arm("a", True), arm("b", False)]},
        {"state": "pilots"},
    ]
    assert tally(plans) == {"test_top1": {"runs": 4, "held": 2, "recommended": 2, "recommended_held": 1}}


def test_a_budget_that_the_pilots_have_used_up_is_said_to_be_too_small():
    budget = budgets.parse("100s")
    said = nothing_predicted({"a": "nothing is left for its run"}, budget, 170.0, -75.0, Path("out"))
    assert said.startswith("--budget: 100s given")
    assert "2.83 min" in said
    assert "--pilot_share" not in said
    said = nothing_predicted({"a": "finished runs of 1 lengths"}, budget, 20.0, 75.0, Path("out"))
    assert "a: finished runs of 1 lengths" in said
    assert "--pilot_share" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_hours_without_a_gpu_are_refused(tmp_path):
    status, _, err = said_by(["plan", f"--output={tmp_path}", "--budget", "2 gpu-hours"])
    assert status == 2
    assert "no GPU" in plain(err)


def test_a_damaged_plan_is_named(tmp_path):
    content = {"format": "kdprune plan 1", "state": "planned", "budget": {}, "level": 0.9, "output": "x", "arms": [],
               "recommended": "x", "design": {"lengths": {}, "dropped": {}, "pilots": 0, "parts": 0}}  # fmt: skip
    for change, words in [({"format": "kdprune plan 2"}, "another version"), ({"arms": [3]}, "'arms'"),
                          ({"level": 7}, "'level'")]:  # fmt: skip
        (tmp_path / "plan.json").write_text(json.dumps({**content, **change}))
        status, _, err = said_by(["plan", "--check", tmp_path])
        assert (status, words in plain(err)) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_plan_that_is_killed_goes_on_with_the_same_command(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    grid = [f"--grid.{name}={','.join(map(str, values)).replace('None', 'null')}" for name, values in GRID.items()]
    words = ["-m", "kdprune", "plan", "--config", tmp_path / "tiny.yaml", "--output", tmp_path / "out",
             "--budget", BUDGET, "--pilot_share", "0.4", *grid]  # fmt: skip
    process = start(*words, log=tmp_path / "log")
    until = time.monotonic() + 400
    while len(list((tmp_path / "out").glob("*/summary.json"))) < 3:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "kdprune train" in done.stdout
    (file,) = (tmp_path / "out/plans").glob("*/plan.json")
    assert load(file)["state"] == "planned"
