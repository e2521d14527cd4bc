"""What runs share: found beforehand as it is then made, one node each, before those that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import config_of, restored_surroundings
from hypothesis import given
from hypothesis import strategies as st

from kdprune.config import config_hash
from kdprune.pipeline.needs import Need, make, merged_targets, needs_of_run
from kdprune.pipeline.train import run
from kdprune.runs.reading import read_config
from kdprune.sweep.estimate import Estimate, duration
from kdprune.sweep.graph import Graph, Node, nodes_of, shared, without_needs
from kdprune.sweep.sections import read_study


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph()
    for index in range(draw(st.integers(1, 12))):
        before = st.sets(st.sampled_from([str(i) for i in range(index)])) if index else st.just(set[str]())
        needs, after = frozenset(draw(before)), frozenset(draw(before))
        graph.add(
            Node(
                str(index),
                "",
                None if draw(st.booleans()) else Need("training", "", "", config_of(Path())),
                needs,
                after,
            )
        )
    return graph


@given(graphs(), st.integers(1, 4), st.sets(st.integers(0, 11)), st.randoms(use_true_random=False))
def test_everything_is_made_once_after_what_it_needs_or_lost_with_it(graph, jobs, bad, random):
    failing = {str(number) for number in bad} & set(graph.nodes)
    made, failed, running, begun = set(), set(), [], []
    while True:
        for id in graph.lost(failed, made | failed | set(running)):
            failed.add(id)
        if graph.lost(failed, made | failed | set(running)):
            continue
        free = jobs - len(running)
        for node in graph.ready(made, made | failed, made | failed | set(running))[:free]:
            assert node.needs <= made
            assert node.after <= made | failed
            running.append(node.id)
            begun.append(node.id)
        if not running:
            break
        done = running.pop(random.randrange(len(running)))
        (failed if done in failing else made).add(done)
    assert len(begun) == len(set(begun))
    assert made | failed == set(graph.nodes)
    for id in failed - failing:
        assert graph.nodes[id].needs & failed
    for id in failing & set(begun):
        assert id in failed


@given(graphs(), st.integers(1, 4))
def test_the_time_of_a_plan_lies_between_its_bounds(graph, jobs):
    estimates = {id: Estimate(seconds=1.0 + int(id)) for id in graph.nodes}
    total = sum(one.seconds for one in estimates.values())
    longest: dict[str, float] = {}
    for id, node in graph.nodes.items():
        longest[id] = estimates[id].seconds + max((longest[b] for b in node.needs | node.after), default=0.0)
    time = duration(graph, estimates, jobs)
    assert max(total / jobs, *longest.values(), 0) - 1e-9 <= time <= total + 1e-9
    if jobs == 1:
        assert time == pytest.approx(total)


@given(graphs())
def test_what_most_wait_for_comes_first(graph):
    ready = graph.ready(set(), set(), set())
    waiting = graph.waiting_for()
    assert [waiting[node.id] for node in ready] == sorted((waiting[node.id] for node in ready), reverse=True)


def needs(folder: Path, **settings: Any) -> list[Need]:
    return needs_of_run(config_of(folder, {name.replace("__", "."): value for name, value in settings.items()}))


def trainings(found: list[Need]) -> set[tuple[str, str]]:
    """Of needs and all that they are made of: the folder of each training, and a hash of its recipe."""
    own = {(need.folder, config_hash(need.config)) for need in found if need.kind == "training"}
    return own.union(*(trainings(list(need.needs)) for need in found))


def trained(folder: Path) -> set[tuple[str, str]]:
    """What is there."""
    runs = [path.parent for part in ("teachers", "records") for path in folder.glob(f"{part}/*/config.yaml")]
    return {(path.parent.name, config_hash(read_config(path))) for path in runs}


TEACHER = {"teacher.models": "mlp_64", "teacher.train.steps": 22}
CASES: dict[str, dict[str, Any]] = {
    "a teacher": TEACHER,
    "teachers without the validation part": {
        **TEACHER, "teacher.models": "mlp_64,mlp_800", "teacher.weights": [1.0, 2.0], "data.val_fraction": 0.1
    },
    "generations": {**TEACHER, "teacher.generations": 2},
    "an early teacher": {**TEACHER, "teacher.train.steps": 44, "teacher.snapshot": 1, "teacher.train_fraction": 0.5},
    "scores by the teacher's training": {**TEACHER, "subset.scorer": "el2n(epoch=1)", "subset.selector": "hardest"},
    "scores by proxies": {
        **TEACHER, "subset.scorer": "el2n(epoch=1)", "subset.selector": "hardest", "record.repeats": 2,
        "record.source": "proxy",
    },
    "scores without a teacher": {"subset.scorer": "el2n(epoch=1)", "subset.selector": "hardest", "seed": 3},
    "scores by features of a proxy": {"subset.scorer": "moderate", "subset.selector": "hardest"},
    "scores by features of the teacher": {**TEACHER, "subset.scorer": "moderate", "subset.selector": "hardest"},
    "scores by gradients": {"subset.scorer": "grand", "subset.selector": "hardest", "record.epoch": 1},
    "scores of an untrained proxy": {"subset.scorer": "grand", "subset.selector": "hardest", "record.epoch": 0},
    "a dynamic order by scores": {"subset.dynamic": "curriculum", "subset.scorer": "el2n(epoch=1)"},
    "scores by what the teacher says": {**TEACHER, "subset.scorer": "teacher_el2n", "subset.selector": "hardest"},
    "no scores": {"subset.selector": "random", "subset.keep_fraction": 0.5},
}  # fmt: skip
QUICK = ("a teacher", "scores without a teacher")


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CASES])
def test_what_a_run_is_said_to_need_is_what_it_makes(case, tmp_path):
    settings = {"subset.keep_fraction": 0.5, "train.steps": 22, **CASES[case]}
    config = config_of(tmp_path, settings)
    found = trainings(needs_of_run(config))
    with restored_surroundings():
        run(config)
    assert found == trained(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("scores by proxies", ["training", "training", "training", "targets"]),
        ("scores by features of the teacher", ["training", "observation", "targets"]),
    ],
)
def test_needs_that_are_made_beforehand_are_found_by_the_run(case, kinds, tmp_path):
    config = config_of(tmp_path, {**CASES[case], "subset.keep_fraction": 0.5, "teacher.targets": "cached"})
    parts, _ = shared({"one": needs_of_run(config), "other": needs_of_run(config)})
    assert [part.kind for part in parts] == kinds
    for part in parts:
        with restored_surroundings():
            make(part)
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and "lock" not in path.name
    }
    with restored_surroundings():
        (result,) = run(config)
    assert result.summary["cost"]["target_caching"]["forward_samples"] == 0
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before


SHARED = {"teacher.models": "mlp_64", "teacher.targets": "cached", "subset.keep_fraction": 0.5}


@pytest.mark.parametrize(
    ("setting", "value", "same"),
    [
        ("distill.alpha", 0.3, True), ("distill.loss", "dkd", True), ("distill.temperature", 2.0, True),
        ("seeds.weights", 7, True), ("output", "x", True), ("train.record", "plain", True),
        ("seeds.data", 7, False), ("seeds.subset", 7, False), ("subset.keep_fraction", 0.4, False),
        ("subset.balanced", True, False), ("teacher.top_k", 3, False), ("teacher.train.lr", 0.3, False),
        ("train.steps", 90, False), ("data.augment", "none", False), ("data.val_fraction", 0.2, False),
        ("teacher.engine", "plain", False), ("teacher.cache", "x", False), ("seeds.teacher", 7, False),
    ],
)  # fmt: skip
def test_cached_targets_are_shared_by_runs_that_meet_the_same_views_of_the_same_samples(setting, value, same, tmp_path):
    fixed = {**SHARED, "teacher.train.steps": 22, "teacher.train.lr": 0.05, "seeds.teacher": 0}
    one, other = (needs_of_run(config_of(tmp_path, {**fixed, **more})) for more in ({}, {setting: value}))
    assert (one[-1].id == other[-1].id) == same


def test_several_teachers_of_the_same_views_are_cached_in_one_pass(tmp_path):
    runs = {
        f"{models} {alpha}": needs_of_run(
            config_of(tmp_path, {**SHARED, "teacher.models": models, "distill.alpha": alpha})
        )
        for models in ("mlp_64", "mlp_800", "mlp_64,mlp_800")
        for alpha in (0.5, 1.0)
    }
    parts, needed = shared(runs)
    targets = [part for part in parts if part.kind == "targets"]
    assert [sorted(part.config.teacher.models) for part in targets] == [["mlp_64", "mlp_800"]]
    assert all(targets[0].id in ids for ids in needed.values())
    assert len([part for part in parts if part.kind == "training"]) == 2
    nodes = list(nodes_of(parts))
    assert nodes[-1].needs == {part.id for part in parts if part.kind == "training"}
    alone = [need for need in runs["mlp_64 0.5"] if need.kind == "targets"]
    assert merged_targets(alone)[alone[0].id] is alone[0]


def test_what_one_run_needs_alone_it_makes_on_its_way(tmp_path):
    config = config_of(tmp_path, {**SHARED, "subset.scorer": "el2n", "subset.selector": "hardest"})
    parts, needed = shared({"run": needs_of_run(config)})
    assert [part.kind for part in parts] == ["training"]
    assert needed["run"] == {parts[0].id}


def test_runs_that_are_there_need_nothing():
    training = Node("t", "", Need("training", "", "t", config_of(Path())))
    graph = Graph(
        {node.id: node for node in (training, Node("a", "", None, frozenset("t")), Node("b", "", None, frozenset("t")))}
    )
    assert list(without_needs(graph, {"a"}).nodes) == ["t", "a", "b"]
    assert list(without_needs(graph, {"a", "b"}).nodes) == ["a", "b"]


def test_with_and_without_a_teacher_the_proxy_is_one(tmp_path):
    proxy = {"subset.scorer": "el2n", "subset.selector": "hardest", "record.source": "proxy"}
    base = config_of(tmp_path, {**proxy, **TEACHER})
    runs = read_study(
        "x", base, {"grid": {"teacher.models": [None, "mlp_64"], "subset.keep_fraction": [0.1, 0.5]}}
    ).runs()
    parts, _ = shared({run.id: needs_of_run(run.config) for run in runs})
    assert sorted(part.config.seeds.role for part in parts) == ["proxy", "teacher"]


def test_seeds_share_a_teacher_where_its_seed_is_given(tmp_path):
    base = config_of(tmp_path, {"teacher.models": "mlp_64", "seeds.teacher": 0})
    runs = read_study("x", base, {"grid": {"seed": [0, 1]}}).runs()
    assert len({need.id for run in runs for need in needs_of_run(run.config)}) == 1
