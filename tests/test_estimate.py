"""What a sweep will take, by a clock of which every tick is known: against the same sums, written out."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import config_of

from kdprune.config import Config, from_dict, to_dict
from kdprune.pipeline.needs import Need
from kdprune.planning import price
from kdprune.planning.budget import parse
from kdprune.planning.price import cost_of, shared_needs
from kdprune.sweep.estimate import Estimate, Estimator, Measured, _Clock, shortened
from kdprune.sweep.plan import make_plan
from kdprune.sweep.sections import read_study

ALL, KEPT, TESTED, CLASSES = 1347, 674, 450, 10  # of the digits; half of them
PLAIN, GUIDED = 0.010, 0.016  # seconds of a step, without and with its teachers
THIRD = PLAIN / 3 / 64  # seconds of a sample that only goes forward


class Ticking(Estimator):
    def _steps(self, config: Config) -> Measured:
        return Measured(GUIDED if config.teacher.models else PLAIN, 0.0, 1000, 2.0)


def recipe(tmp_path, **changes: Any) -> Config:
    """Four epochs of half of the digits: 42 steps of 64."""
    settings = {"train.steps": None, "train.epochs": 4, "subset.keep_fraction": 0.5, "teacher.targets": "cached"}
    return config_of(tmp_path, {**settings, **{name.replace("__", "."): value for name, value in changes.items()}})


@pytest.mark.parametrize("teachers", [[], ["mlp_64"], ["mlp_64", "mlp_800"]])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_run_takes_its_steps_with_their_teachers_and_its_evaluations(tmp_path, teachers, every):
    config = recipe(tmp_path, teacher__models=teachers, train__eval_every=every)
    evaluations = {1: 4, 3: 2, 10: 1}[every]  # the last epoch is always evaluated
    step = GUIDED if teachers else PLAIN
    found = Ticking(1).of_training(config)
    assert found.seconds == pytest.approx(42 * step + evaluations * TESTED * THIRD)
    assert found.passes == (2 + len(teachers)) * 42 * 64 + evaluations * TESTED
    assert found.bytes == 1000
    there = Ticking(1).of_training(config, cached=True)
    assert there.seconds == pytest.approx(42 * PLAIN + evaluations * TESTED * THIRD)
    assert there.passes == 2 * 42 * 64 + evaluations * TESTED, "cached targets are read"


@pytest.mark.parametrize(("views", "met"), [(None, 4), (2, 2), (9, 4)])
@pytest.mark.parametrize("teachers", [["mlp_64"], ["mlp_64", "mlp_800"]])
def test_cached_targets_take_a_pass_of_each_teacher_for_every_view_that_is_met(tmp_path, views, met, teachers):
    config = recipe(tmp_path, teacher__models=teachers, teacher__views=views)
    found = Ticking(1).of_need(Need("targets", "", "targets-1", config))
    assert found.seconds == pytest.approx(met * KEPT / 64 * (GUIDED - PLAIN)), "a step has all teachers in it"
    assert found.passes == len(teachers) * met * KEPT
    assert found.bytes == len(teachers) * met * KEPT * (2 * CLASSES + 4), "float16, and a checksum of 32 bits"
    few = recipe(tmp_path, teacher__models=teachers, teacher__views=views, teacher__top_k=3)
    assert Ticking(1).of_need(Need("targets", "", "x", few)).bytes == len(teachers) * met * KEPT * (4 * 3 + 6 + 4)


def test_an_observation_is_one_pass_over_all_samples_whatever_is_kept(tmp_path):
    found = Ticking(1).of_need(Need("observation", "", "observation-1", recipe(tmp_path)))
    assert (found.seconds, found.passes, found.bytes) == (pytest.approx(ALL * THIRD), ALL, 0)


def test_a_training_that_runs_share_is_a_training(tmp_path):
    config = recipe(tmp_path)
    assert Ticking(1).of_need(Need("training", "", "training-1", config)) == Ticking(1).of_training(config)


def test_what_is_set_aside_is_not_trained_on(tmp_path):
    config = recipe(tmp_path, subset__keep_fraction=1.0, data__val_fraction=0.1, train__eval_every=10)
    assert Ticking(1).of_training(config).passes == 2 * 64 * (4 * (ALL - 135) // 64) + TESTED


def test_a_teacher_in_whose_company_steps_seem_shorter_takes_no_time(tmp_path):
    class Hasty(Ticking):
        def _steps(self, config: Config) -> Measured:
            return Measured(0.009 if config.teacher.models else PLAIN, 0.0, 1000, 2.0)

    config = recipe(tmp_path, teacher__models=["mlp_64"])
    assert Hasty(1).of_training(config).seconds == Hasty(1).of_training(config, cached=True).seconds
    assert Hasty(1).beside(config) == 2.0


def test_a_study_pays_once_for_what_its_runs_share(tmp_path):
    """Two values of α: one teacher is trained, its targets are cached once, and both runs read them."""
    base = recipe(tmp_path, teacher__models=["mlp_64"], train__eval_every=10)
    plan = make_plan(read_study("x", base, {"grid": {"distill.alpha": [0.5, 1.0]}}), 0.1, 1)
    found = Ticking(1).of_plan(plan)
    kinds = {id: "run" if node.need is None else node.need.kind for id, node in plan.graph.nodes.items()}
    assert sorted(kinds.values()) == ["run", "run", "targets", "training"]
    passes = {kind: [found[id].passes for id in kinds if kinds[id] == kind] for kind in set(kinds.values())}
    assert passes["run"] == [2 * 42 * 64 + TESTED] * 2, "no teacher in them"
    assert passes["targets"] == [4 * KEPT]
    assert passes["training"] == [2 * 64 * (4 * ALL // 64) + TESTED], "on all samples"
    total = sum(found.values(), Estimate())
    assert total.passes == sum(map(sum, passes.values()))
    assert total.bytes == 3 * 1000 + 4 * KEPT * (2 * CLASSES + 4)


def test_what_an_arm_is_made_of_costs_in_the_unit_of_the_budget_and_targets_are_part_of_its_steps(tmp_path):
    config = recipe(
        tmp_path, teacher__models=["mlp_64"], subset__selector="hardest", subset__scorer="el2n(epoch=1)",
        train__eval_every=10, record__train__epochs=2,
    )  # fmt: skip
    needs = shared_needs([config, config])
    assert sorted(need.kind for need in needs.values()) == ["training", "training"], "a teacher, and a proxy"
    estimator = Ticking(1)
    for need in needs.values():
        expected = estimator.of_training(need.config)
        assert cost_of(need, parse("1e6 passes"), estimator) == expected.passes
        assert cost_of(need, parse("1h"), estimator) == expected.seconds
    assert {estimator.of_training(need.config).passes for need in needs.values()} == {
        2 * 64 * (epochs * ALL // 64) + TESTED for epochs in (4, 2)
    }


def test_what_parts_are_made_of_is_a_part_too(tmp_path, monkeypatch):
    config = recipe(tmp_path)
    first = Need("training", "", "a teacher's teacher", config)
    teacher = Need("training", "", "a teacher", config, needs=(first,))
    targets = Need("targets", "", "its targets", config, needs=(teacher,))
    monkeypatch.setattr(price, "needs_of_run", lambda config: [targets])
    assert shared_needs([config]) == {first.id: first, teacher.id: teacher}


def test_a_step_takes_as_long_as_the_shortest_of_the_second_half():
    clock = _Clock()
    clock._times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 3.5, 5.5, 10.5, 14.5, 20.5, 27.5]
    assert clock.seconds == pytest.approx(2.0)


def test_runs_whose_steps_take_equally_long_are_measured_once(tmp_path):
    one = recipe(tmp_path, teacher__models=["mlp_64"])
    for name, value in (("train__lr", 0.3), ("train__epochs", 9), ("subset__keep_fraction", 0.1), ("seed", 3)):
        assert shortened(recipe(tmp_path, teacher__models=["mlp_64"], **{name: value})) == shortened(one), name
    for name, value in (("train__batch_size", 32), ("student__model", "mlp_800"), ("train__ema", 0.9)):
        assert shortened(recipe(tmp_path, teacher__models=["mlp_64"], **{name: value})) != shortened(one), name
    assert shortened(one).train.steps == 12
    assert from_dict(to_dict(shortened(one))) == shortened(one)
