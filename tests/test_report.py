"""Reports: what repetitions say, what runs cost, which runs belong together, and what the files then hold."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
import yaml
from helpers import REPO, said_by, train, unfinish
from hypothesis import given
from hypothesis import strategies as st

from kdprune.config import Config, to_dict
from kdprune.pipeline.drawing import new_figure
from kdprune.report.bills import Bill
from kdprune.report.charts import Chart, Missing, Panel, Points
from kdprune.report.costs import Item, as_tuning, items_of, total
from kdprune.report.entries import Entry, Gathered, caching_seconds
from kdprune.report.figures.alpha import alpha_by_keep
from kdprune.report.gather import gather
from kdprune.report.interactive import plotly_figures
from kdprune.report.report import make_report, save_tables
from kdprune.report.runs import read_run
from kdprune.report.sections import _by_common_seeds, label_of, sections_of
from kdprune.report.static import _draw
from kdprune.report.statistics import Difference, mean_and_sd, paired_difference, pareto_front
from kdprune.report.study import read_sweep
from kdprune.report.tables import _difference, arm_table, cost_words, count_words, mean_words, reading_words
from kdprune.report.watch import follow
from kdprune.sweep.journal import Journal
from kdprune.yaml_text import parse_yaml, read_yaml

NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 3))


def results(seeds):
    return st.dictionaries(seeds, NUMBERS, max_size=6)


@given(results(st.integers(0, 7)), results(st.integers(0, 7)))
def test_the_paired_difference_is_students(arm, baseline):
    found = paired_difference(arm, baseline)
    seeds = [seed for seed in arm if seed in baseline]
    assert found.n == len(seeds)
    assert found.unpaired == sum(s not in baseline for s in arm) + sum(s not in arm for s in baseline)
    differences = [float(arm[seed]) - float(baseline[seed]) for seed in seeds]
    if not seeds:
        assert (found.mean, found.half_width) == (None, None)
        return
    mean = sum(differences) / len(differences)
    assert found.mean == pytest.approx(mean)
    if len(seeds) == 1:
        assert found.half_width is None, "one pair says nothing of the spread"
        return
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    half = scipy.stats.t.ppf(0.975, len(differences) - 1) * math.sqrt(variance / len(differences))
    assert found.half_width == pytest.approx(half, abs=1e-9)
    if variance > 1e-6:
        of_scipy = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
            tuple(of_scipy), abs=1e-6
        )


def test_runs_of_several_teachers_seeds_are_paired_with_the_one_run_without_a_teacher_once():
    """Two seeds of the student, two of the teacher: two independent pairs, of which each guided one is a mean."""
    plain = {(("seed", "0"),): 50.0, (("seed", "1"),): 52.0}
    guided = {
        (("seed", s), ("seeds.teacher", t)): top1
        for (s, t), top1 in {("0", "0"): 53.0, ("0", "1"): 55.0, ("1", "0"): 56.0, ("1", "1"): 58.0}.items()
    }
    found = paired_difference(*_by_common_seeds(guided, plain))
    expected = scipy.stats.ttest_rel([54.0, 57.0], [50.0, 52.0]).confidence_interval(0.95)
    assert (found.mean, found.n, found.unpaired) == (4.5, 2, 0)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(tuple(expected))
    assert _by_common_seeds(guided, guided) == [guided, guided]
    assert _by_common_seeds({}, plain)[1] == plain


def test_the_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1.0, 2.0, (2000, 3))
    found = [paired_difference(dict(enumerate(row)), dict.fromkeys(range(3), 0.0)) for row in draws]
    covered = np.mean([abs(one.mean - 1.0) <= one.half_width for one in found])
    assert 0.93 < covered < 0.97


def test_mean_and_sd():
    assert mean_words(*mean_and_sd([1.0, 2.0, 3.0])) == "2.00 ± 1.00"
    assert mean_words(*mean_and_sd([1.0])) == "1.00"
    assert mean_words(*mean_and_sd([])) == "-"


@given(st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), max_size=12))
def test_the_pareto_front_is_what_nothing_beats(points):
    def beaten(one):
        return any(o[0] <= one[0] and o[1] >= one[1] and o != one for o in points)

    assert sorted(pareto_front(points)) == [i for i, point in enumerate(points) if not beaten(point)]
    costs = [points[i][0] for i in pareto_front(points)]
    assert costs == sorted(costs)


def summary(key: str, teachers: dict[str, float], training: float, **more):
    """Of a run with teachers that were trained here, by their seconds."""
    whole = {"seconds": sum(teachers.values()), "forward_samples": 100 * len(teachers), "backward_samples": 0}
    return {
        "key_hash": key, "subset_hash": "s", "epochs": 4.0, "kept": 10, "key": {"seeds": {"data": 0}},
        "teacher": [{"name": n, "weights_hash": n, "training": {"train_seconds": s}} for n, s in teachers.items()],
        "inputs": {"teachers": [{"run": f"run-{name}"} for name in teachers], "scores": None},
        "cost": {"teacher_training": whole, "student_training": {"seconds": training, "forward_samples": 7,
                 "backward_samples": 7, "lost": {"seconds": 99.0, "samples": 99}}},
        **more,
    }  # fmt: skip


def test_shared_things_are_counted_once_in_a_sum_and_in_full_alone():
    cached = {"teacher.targets": "cached", "teacher.views": None}
    first = items_of(summary("a", {"small": 10.0}, 1.0), cached, caching=3.0)
    second = items_of(summary("b", {"small": 10.0}, 2.0), cached, caching=3.0)
    both = items_of(summary("c", {"small": 10.0, "large": 30.0}, 4.0), {})
    assert total(first).stages == {"teacher": 10.0, "caching": 3.0, "training": 1.0}
    assert total(first).passes == 100 + 14 + 4 * 10  # targets of four views of ten samples, whoever filled them
    assert total([*first, *second]).seconds == 10 + 3 + 1 + 2
    assert total([*first, *second, *both]).seconds == pytest.approx(10 + 30 + 3 + 1 + 2 + 4)
    assert total([*first, Item("tuning", first[0].id, 10.0, 0.0)]).stages["teacher"] == 10.0
    assert items_of({}, {}) == []


def test_a_cost_has_all_passes_and_of_teachers_each_its_own_part():
    run = summary("a", {"small": 10.0, "large": 30.0}, 1.0)
    run["cost"]["student_training"]["teacher_forward_samples"] = 5
    found = [(item.stage, item.seconds, item.passes) for item in items_of(run, {})]
    assert found == [("teacher", 10.0, 50.0), ("teacher", 30.0, 150.0), ("training", 1.0, 19.0)]
    assert caching_seconds([(12.0, 3), (5.0, 1)], {"teacher.models": ["a"]}) == 4 + 5


def test_a_difference_is_said_with_both_ends_of_its_interval():
    assert _difference(Difference(1.0, 0.5, 3, 0)) == "+1.00 [+0.50, +1.50]"


def test_what_runs_cost_is_said_of_one_of_several_and_of_none():
    def said(*seconds):
        costs = [total([Item("training", str(run), cost, 0.0)]) for run, cost in enumerate(seconds)]
        once = total(Item("training", str(run), cost, 0.0) for run, cost in enumerate(seconds))
        return cost_words(Bill([costs], [None], [None], once, sum(seconds)))

    assert said(7200.0).startswith("The one finished run took 2 h")
    assert said(3600.0, 3600.0).startswith("All 2 finished runs took 2 h")
    assert said() == "No run is finished."


def test_targets_of_ensembles_that_one_pass_has_filled_are_counted_once():
    """One pass asked three teachers; its 12 seconds are 4 for each, of whichever runs they are."""
    cached, runs = {"teacher.targets": "cached"}, []
    for count in (1, 2, 3):
        names = dict.fromkeys("abc"[:count], 0.0)
        runs.append(items_of(summary(str(count), names, 0.0), cached, caching=12.0 * count / 3))
    assert [total(run).stages["caching"] for run in runs] == pytest.approx([4, 8, 12])
    assert [sum(i.passes for i in run if i.stage == "caching") for run in runs] == pytest.approx([40, 80, 120])
    together = total(item for run in runs for item in run)
    assert together.stages["caching"] == pytest.approx(12)
    assert sum(i.passes for run in runs for i in run if i.stage == "caching") - (together.passes - 3 * 14 - 300) == 120


@pytest.mark.parametrize("seen", [{"views": {"recipe": "flip"}}, {"seeds": {"data": 1}}])
def test_targets_of_other_views_are_other_things(seen):
    cached = {"teacher.targets": "cached"}
    one, other = (items_of(summary(k, {"a": 0.0}, 0.0) | {"key": v}, cached, 3.0) for k, v in (("1", {}), ("2", seen)))
    assert total([*one, *other]).stages["caching"] == 6
    few = items_of(summary("3", {"a": 0.0}, 0.0) | {"key": {}}, {**cached, "teacher.top_k": 3}, 3.0)
    assert total([*one, *few]).stages["caching"] == 6


def test_what_a_run_found_is_counted_as_what_making_it_takes_in_any_order():
    cached = {"teacher.targets": "cached"}
    long, short = (items_of(summary(k, {"a": 0.0}, 0.0, epochs=e), cached) for k, e in (("1", 9.0), ("2", 2.0)))
    assert total([*short, *long]) == total([*long, *short])
    assert total([*short, *long]).passes == 100 + 2 * 14 + 90
    filled, found = (items_of(summary(k, {"a": 0.0}, 0.0), cached, seconds) for k, seconds in (("1", 3.0), ("2", 0.0)))
    for order in ([*filled, *found], [*found, *filled]):
        assert total(order).stages == {"caching": 3.0}
    begun = items_of(summary("4", {"a": 0.0}, 0.0, epochs=3.5), cached)
    assert total(begun).passes == 100 + 14 + 40, "an epoch that is begun has views of all samples"
    # 30 of 40 were there: it asked for 10, and alone it would have asked for the 38 that it has met.
    part = summary("3", {"a": 0.0}, 0.0, images_seen=38)
    part["cost"]["target_caching"] = {"forward_samples": 10}
    assert sum(i.passes for i in items_of(part, cached) if i.stage == "caching") == 38


def test_what_a_final_run_is_made_of_is_no_tuning_in_any_order():
    final = items_of(summary("a", {"small": 10.0}, 1.0), {})
    for items in ([*final, *as_tuning(final)], [*as_tuning(final), *final]):
        assert total(items).stages == {"teacher": 10.0, "training": 1.0}


def test_trials_of_an_ensemble_pay_for_all_of_its_targets(tmp_path):
    node = {"kind": "targets", "what": "", "needs": [], "teachers": 3}
    trial = {"kind": "trial", "what": "", "needs": ["targets-1"]}
    run = {"id": "run-x", "coordinates": {"arm": "a"}, "needs": [], "tried": ["trial-1"]}
    folder = as_sweep(tmp_path / "s", {}, nodes={"targets-1": node, "trial-1": trial}, runs=[run])
    _, path = train(tmp_path / "runs", {"train.steps": 1, "teacher.models": ["mlp_64"], "distill.alpha": 0.5})
    settings = yaml.safe_load((path / "config.yaml").read_text())
    settings["teacher"]["models"] = ["mlp_64", "mlp_800", "mlp_1200"]
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    Journal(folder).write({"id": "targets-1", "state": "finished", "seconds": 12.0})
    Journal(folder).write({"id": "trial-1", "state": "finished", "seconds": 1.0, "path": str(path)})
    Journal(folder).write({"id": "run-x", "state": "finished", "seconds": 1.0, "path": str(path)})
    (entry,) = gather([folder]).entries
    assert caching_seconds(entry.trials[0].fills, entry.values) == 12
    (bill,) = make_report([folder]).bills
    assert bill.once.stages["tuning"] == pytest.approx(12)


def test_recordings_are_shared_by_what_was_observed():
    scores = {"scorer": "el2n", "origin": {"observed": ["x"]}}
    one, other = (summary(key, {}, 1.0, inputs={"teachers": [], "scores": scores}) for key in ("a", "b"))
    for run in (one, other):
        run["cost"]["observation"] = {"seconds": 50.0, "forward_samples": 5, "backward_samples": 5}
    assert total([*items_of(one, {}), *items_of(other, {})]).stages == {"recording": 50.0, "training": 2.0}


# ---- runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two arms at two keep fractions, two seeds."""
    output = tmp_path_factory.mktemp("runs")
    for keep in (0.1, 0.5):
        for seed in (0, 1):
            options = {"seed": seed, "subset.keep_fraction": keep, "train.steps": 4, "train.eval_every": 1}
            train(output, options)
            train(output, {**options, "teacher.models": ["mlp_64"], "seeds.teacher": 0, "distill.alpha": 0.5})
    return output


def students(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/summary.json"))


def as_sweep(folder: Path, arms: dict[str, list[Path]], /, **changes) -> Path:
    """The folder of a sweep whose arms are runs that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    journal, planned = Journal(folder), []
    for arm, paths in arms.items():
        for seed, path in enumerate(paths):
            id = f"run-{arm}-{seed}"
            planned.append({"id": id, "coordinates": {"arm": arm, "seed": str(seed)}, "needs": [], "tried": []})
            journal.write({"id": id, "state": "finished", "seconds": 1.0, "path": str(path)})
    content = {"format": "kdprune study 1", "name": folder.name, "axes": [["arm"], ["seed"]], "tuned": [],
               "warnings": [], "nodes": {}, "runs": planned, **changes}  # fmt: skip
    (folder / "study.json").write_text(json.dumps(content))
    return folder


def test_runs_become_arms_by_what_differs_but_the_seeds(runs, tmp_path):
    report = make_report([runs])
    (section,) = report.sections
    assert section.series == ["no teacher", "teacher mlp_64"]
    assert [arm.label for arm in section.arms] == [
        "no teacher · keep 0.1", "teacher mlp_64 · keep 0.1", "no teacher · keep 0.5", "teacher mlp_64 · keep 0.5",
    ]  # fmt: skip
    assert {len(arm.entries) for arm in section.arms} == {2}
    assert section.baselines == {1: 0, 3: 2}, "the arm without a teacher at the same keep fraction"
    assert section.difference(1).n == 2, "paired by seed, although only one of two has a teacher's seed"
    assert "1 teachers" in report.notes[0]
    assert "without a teacher" in report.warnings[0], "one learning rate for all"
    bill = report.bills[0]
    teacher = next(runs.glob("teachers/*/summary.json"))
    seconds = json.loads(teacher.read_text())["train_seconds"]
    assert bill.once.stages["teacher"] == pytest.approx(seconds)
    assert bill.apart - bill.once.seconds == pytest.approx(3 * seconds)
    rows = list(csv.DictReader(save_tables(report, tmp_path)[0].read_text().splitlines()))
    assert len(rows) == 8
    for row in rows:
        whole = json.loads((Path(row["run"]) / "summary.json").read_text())
        assert float(row["test_top1"]) == whole["test_top1"]
        assert row["key.seeds.weights"] == str(whole["key"]["seeds"]["weights"]), "all of summary.json"
        assert row["state"] == "finished"
        assert float(row["alone_seconds"]) >= whole["train_seconds"]
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.num_rows == 8
    assert str(table.schema.field("test_top1").type) == "double"
    assert table["arm"].to_pylist() == [row["arm"] for row in rows]
    text = (tmp_path / "results.md").read_text()
    assert "**Warning.**" in text
    assert text.count("baseline |") == 2
    assert text.count("| **") == 2, "the best of each keep fraction"


def test_a_table_is_honest_about_one_seed_and_about_seeds_without_a_partner(runs, tmp_path):
    report = make_report([runs])
    plain = [entry.run.path for entry in report.sections[0].arms[0].entries]
    guided = [entry.run.path for entry in report.sections[0].arms[1].entries]
    (section,) = make_report([as_sweep(tmp_path / "one", {"plain": plain[:1], "kd": guided[:1]})]).sections
    lines = arm_table(section, make_report([tmp_path / "one"]).bills[0])
    assert "±" not in lines[2][1]
    assert "1 pair" in lines[2][3]
    assert "[" not in lines[2][3]
    (section,) = make_report([as_sweep(tmp_path / "two", {"plain": plain, "kd": guided[:1]})]).sections
    assert section.difference(1).unpaired == 1
    assert "1 unpaired" in arm_table(section, make_report([tmp_path / "two"]).bills[0])[2][3]


def seeded(path: Path, teacher: str, seed: str, top1: float) -> Entry:
    run = read_run(path)
    values = {**run.values, "test_top1": top1 / 100}
    return Entry({"arm": "a"}, {"seed": seed, "seeds.teacher": teacher}, "finished", replace(run, values=values))


def test_runs_of_one_students_seed_are_one_repetition_whoever_taught_them(runs):
    path = students(runs)[0]
    places = [("0", "0", 50.0), ("1", "0", 52.0), ("0", "1", 57.0), ("1", "1", 57.0), ("2", "1", 60.0)]
    waiting = Entry({"arm": "a"}, {"seed": "2", "seeds.teacher": "0"}, "waiting", None)
    entries = [*(seeded(path, *place) for place in places), waiting]
    (section,) = sections_of(Gathered(entries, [], [], {}))
    (arm,) = section.arms
    assert list(arm.top1.values()) == [51.0, 58.0]
    assert arm.mean_and_sd == pytest.approx((54.5, math.sqrt(2 * 3.5**2)))
    assert count_words(arm) == "2 (5 runs, 1 missing)"
    (section,) = sections_of(Gathered(entries[:1], [], [], {}))
    assert count_words(section.arms[0]) == "1"


def test_loose_runs_of_equal_settings_and_other_contents_are_told_apart(tmp_path):
    """A subset file that was written anew between two runs of the same command."""
    file = tmp_path / "subset.json"
    for place in ("a", "b"):
        _, chosen = train(tmp_path / "made", {"train.steps": 1, "seed": ord(place), "subset.keep_fraction": 0.5})
        shutil.copy(chosen / "subset.json", file)
        for seed in (0, 1):
            train(tmp_path / place, {"train.steps": 1, "subset.file": str(file), "seed": seed})
    train(tmp_path / "c", {"train.steps": 2, "subset.file": str(file)})
    (section,) = make_report([tmp_path / place for place in "abc"]).sections
    assert [len(arm.top1) for arm in section.arms] == [2, 2, 1]
    subsets = [{entry.summary["subset_hash"] for entry in arm.entries} for arm in section.arms]
    for arm, (subset, *others) in zip(section.arms[:2], subsets, strict=False):
        assert not others
        assert f"subset {subset[:8]}" in arm.label
    assert "contents" not in section.arms[2].coordinates
    notes = make_report([tmp_path / place for place in "abc"]).notes
    assert "4 runs have settings of others" in notes[-1]
    copied = make_report([tmp_path / "a", shutil.copytree(tmp_path / "a", tmp_path / "copy")])
    assert [len(arm.top1) for arm in copied.sections[0].arms] == [2], "a copy says nothing more"


def test_seconds_of_all_attempts_are_counted(tmp_path):
    folder = as_sweep(tmp_path / "s", {})
    for state, seconds in [("stopped", 3.0), ("failed", 2.0), ("finished", 10.0), ("finished", 0.1)]:
        Journal(folder).write({"id": "targets-1", "state": state, "seconds": seconds})
    assert read_sweep(folder).journal["targets-1"]["seconds"] == 15.0


def cost_axis(low: float, high: float) -> tuple[dict, list[str]]:
    """The x axis of a figure on the page, and what is written at that of its file."""
    marks = [Points([x], [1.0], [""], 0) for x in (low, high)]
    panel = Panel("", "sample passes", "top-1, %", marks, log_x=True)
    figure = new_figure(5, 3)
    axes = figure.subplots()
    _draw(axes, panel)
    figure.canvas.draw()
    limits = axes.get_xlim()
    labels = axes.get_xticklabels(which="both")
    words = [one.get_text() for one in labels if limits[0] <= one.get_position()[0] <= limits[1]]
    return plotly_figures(Chart("cost", "", "", [panel]))[0]["layout"]["xaxis"], [word for word in words if word]


@pytest.mark.parametrize(("low", "high"), [(2304, 5549), (5.21, 6.43), (240, 700), (30, 2e9), (0.7, 0.7)])
def test_an_axis_of_costs_says_whole_numbers(low, high):
    """A lone '5' stood for 5,000 before, and costs within a factor of two had no number at all."""
    axis, words = cost_axis(low, high)
    if high < 2 * low:
        assert axis.get("type") != "log", "between two numbers of a logarithmic axis there may be no place for a third"
    else:
        assert axis["tickformat"] == ("~s" if high >= 1000 else "~g"), "else plotly leaves the power of ten away"
    assert len(words) >= 2
    assert not any("10" in word and "^" in word for word in words)
    assert all(word.isascii() for word in words)


def test_alpha_is_compared_where_a_keep_fraction_has_several(runs, tmp_path):
    """α that follows the keep fraction has one value at each: nothing to compare, and no best."""
    guided = [path for path in students(runs) if "-kd-" in path.name]
    (section,) = make_report([as_sweep(tmp_path / "one", {"kd": guided[:2], "other": guided[2:]})]).sections
    keeps = iter([0.9, 0.5])
    for arm in section.arms:
        alpha = next(keeps)
        for entry in arm.entries:
            entry.run.summary["alpha"] = alpha
    assert isinstance(alpha_by_keep(section), Missing)
    (mixed,) = make_report([runs]).sections
    for arm in mixed.arms:
        for entry in arm.entries:
            entry.run.summary["alpha"] = 0.9 if arm.keep == 0.1 else 0.5
    assert isinstance(alpha_by_keep(mixed), Chart), "no teacher is α = 0"


def test_a_baseline_can_be_named(runs, tmp_path):
    paths = students(runs)
    folder = as_sweep(tmp_path / "s", {"a": paths[:2], "b": paths[2:4]})
    (section,) = sections_of(gather([folder]), {"arm": "b"})
    assert [section.arms[i].coordinates["arm"] for i in section.baselines.values()] == ["b"]
    (section,) = sections_of(gather([folder]))
    assert section.baselines == {0: 1}, "the arm without a teacher"
    (section,) = sections_of(gather([folder]), {"arm": "a"})
    assert section.baselines == {1: 0}
    with pytest.raises(ValueError, match=r"--baseline: .*arm=a"):
        make_report([folder], {"arm": "c"})


def test_half_written_runs_are_said_and_the_others_reported(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    first, second, third, fourth, *_ = students(folder)
    (first / "summary.json").write_text("{")
    (second / "summary.json").unlink()
    unfinish(second)
    (third / "metrics.csv").write_text("epoch\nx")
    (fourth / "config.yaml").write_text("a: [")
    report = make_report([folder])
    (section,) = report.sections
    states = [entry.state for entry in section.entries]
    assert sorted(states) == ["finished"] * 4 + ["unfinished"]
    for broken in (first, third, fourth):
        assert any(broken.name in note and "left out" in note for note in report.notes)


def test_runs_of_different_data_are_kept_apart_and_said(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    other = students(folder)[0]
    content = json.loads((other / "summary.json").read_text())
    content |= {"dataset_fingerprint": "f" * 64, "dataset": "other"}
    (other / "summary.json").write_text(json.dumps(content))
    report = make_report([folder])
    assert [(section.title, len(section.entries)) for section in report.sections] == [("digits", 7), ("other", 1)]
    save_tables(report, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "on 2 data sets, which are kept apart" in text
    assert text.count("\n## ") == 2


def test_a_sweep_of_an_early_version_is_read_from_its_journal(runs, tmp_path):
    paths = students(runs)
    for seed, path in enumerate(paths[:2]):
        place = {"coordinates": {"arm": "a", "seed": str(seed)}, "tuned": {"train.lr": 0.1}}
        Journal(tmp_path).write({"id": f"final-run-{seed}", "state": "finished", "path": str(path), **place})
        Journal(tmp_path).write({"id": f"run-{seed}", "state": "failed", "seconds": 5.0, **place})
    (section,) = make_report([tmp_path]).sections
    assert [arm.label for arm in section.arms] == ["a"]
    assert section.arms[0].tuned == {"train.lr": "0.1"}
    study = read_sweep(tmp_path)
    assert study.runs[0].tried == ("run-0", "run-1")
    assert make_report([tmp_path]).bills[0].once.stages["tuning"] == 10.0


def test_runs_that_were_made_to_choose_by_are_no_arms_of_a_folder(runs, tmp_path):
    output = tmp_path / "moved"
    shutil.copytree(runs, output)
    paths = students(output)
    elsewhere = [Path("/before") / path.name for path in paths]  # the output was moved since
    final, trial, both, pilot = elsewhere[:4]
    planned = [
        {"id": "final-run-1", "coordinates": {"seed": "0"}, "needs": [], "tried": ["run-1", "run-2"]},
        {"id": "final-run-2", "coordinates": {"seed": "1"}, "needs": [], "tried": []},
    ]
    folder = as_sweep(output / "sweeps/s", {}, runs=planned, tuned=["train.lr"])
    for id, path in {"final-run-1": final, "final-run-2": both, "run-1": trial, "run-2": both}.items():
        Journal(folder).write({"id": id, "state": "finished", "seconds": 1.0, "path": str(path)})
    (output / "plans/p").mkdir(parents=True)
    place = {"coordinates": {"pilot": "a", "steps": "4", "seed": "0"}}
    Journal(output / "plans/p").write({"id": "run-9", "state": "finished", "path": str(pilot), **place})
    for source in (output, tmp_path):
        report = make_report([source])
        found = {entry.run.path.name for section in report.sections for entry in section.entries}
        assert found == {path.name for path in paths} - {trial.name, pilot.name}
        assert any("2 runs that sweeps and plans made to choose by" in note for note in report.notes)
    named = make_report([output / trial.name, output / pilot.name])  # who names them wants to see them
    assert len(named.sections[0].entries) == 2


def test_what_was_chosen_at_an_end_of_its_range_is_marked_in_the_table(runs, tmp_path):
    paths, folder = students(runs), tmp_path / "s"
    as_sweep(folder, {str(lr): [path] for lr, path in zip((0.1, 0.2, 0.4), paths, strict=False)})
    curve = [{"train.lr": lr, "val_top1": 0.5} for lr in (0.1, 0.2, 0.4)]
    for lr, path in zip((0.1, 0.2, 0.4), paths, strict=False):
        Journal(folder).write({"id": f"run-{lr}-0", "state": "finished", "path": str(path), "tuned": {"train.lr": lr},
                               "curve": curve})  # fmt: skip
    report = make_report([folder])
    (section,) = report.sections
    assert [line[1] for line in arm_table(section, report.bills[0])[1:]] == ["0.1 ↓", "0.2", "0.4 ↑"]
    assert [arm.tuned["train.lr"] for arm in section.arms] == ["0.1", "0.2", "0.4"]
    assert "a wider range may hold a better one" in reading_words(section)


def test_sweeps_of_one_name_are_told_apart(runs, tmp_path):
    paths = students(runs)
    folders = [as_sweep(tmp_path / place / "s", {"a": paths[i : i + 1]}) for i, place in enumerate("xyz")]
    assert {entry.coordinates["study"] for entry in gather(folders).entries} == {str(folder) for folder in folders}
    other = as_sweep(tmp_path / "other", {"a": paths[:1]})
    assert {entry.coordinates["study"] for entry in gather([folders[0], other]).entries} == {"s", "other"}
    assert "study" not in gather([other]).entries[0].coordinates


def test_states_of_a_sweep(runs, tmp_path):
    path = students(runs)[0]
    folder = as_sweep(
        tmp_path / "s", {"a": [path]},
        nodes={"training-1": {"kind": "training", "what": "teacher mlp", "needs": []}},
        runs=[{"id": f"run-{name}", "coordinates": {"arm": name, "seed": "0"}, "needs": ["training-1"], "tried": []}
              for name in ("done", "failed", "waiting")],
    )  # fmt: skip
    Journal(folder).write({"id": "run-done", "state": "finished", "path": str(path)})
    Journal(folder).write({"id": "run-failed", "state": "failed", "error": "it diverged"})
    states = {entry.coordinates["arm"]: (entry.state, entry.error) for entry in gather([folder]).entries}
    assert states == {"done": ("finished", ""), "failed": ("failed", "it diverged"), "waiting": ("waiting", "")}
    Journal(folder).write({"id": "training-1", "state": "failed", "error": "boom"})
    states = {entry.coordinates["arm"]: (entry.state, entry.error) for entry in gather([folder]).entries}
    assert states["waiting"] == ("lost", "needs teacher mlp, which failed")
    Journal(folder).write({"id": "run-done", "state": "finished", "path": str(tmp_path / "gone")})
    assert next(entry.state for entry in gather([folder]).entries) == "lost"


def test_a_run_at_several_coordinates_is_one_row(runs, tmp_path):
    path = students(runs)[0]
    place = [{"id": "run-1", "coordinates": {"arm": "none", "distill.alpha": a, "seed": "0"}, "needs": [], "tried": []}
             for a in ("0.5", "1")]  # fmt: skip
    folder = as_sweep(tmp_path / "s", {}, runs=place)
    Journal(folder).write({"id": "run-1", "state": "finished", "path": str(path)})
    (entry,) = gather([folder]).entries
    assert entry.coordinates == {"arm": "none"}


@pytest.mark.parametrize("damage", [
    {"format": "kdprune study 9"}, {"runs": [{"id": 1}]}, {"nodes": {"a": []}}, {"axes": "arm"}, {"name": None},
])  # fmt: skip
def test_a_damaged_study_is_named(tmp_path, damage):
    folder = as_sweep(tmp_path / "s", {}, **damage)
    with pytest.raises(ValueError, match=r"study\.json"):
        read_sweep(folder)


@pytest.mark.parametrize(("words", "complaint"), [
    (["nowhere"], "no such folder: nowhere"), (["EMPTY"], "no run there"), (["RUNS", "--figures", "gif"], "gif"),
    (["RUNS", "--baseline", "keep"], "--baseline: 'keep' given"),
    (["RUNS", "--baseline", "arm=x"], "--baseline: no arm"),
])  # fmt: skip
def test_mistakes_are_said(runs, tmp_path, words, complaint):
    places = {"EMPTY": tmp_path, "RUNS": runs}
    status, _, said = said_by(["report", *(places.get(word, word) for word in words)])
    assert status == 2
    assert complaint in said
    assert not (runs / "report").exists(), "nothing was written"


def test_labels():
    assert label_of({"arm": "α 0.5", "subset.keep_fraction": "0.1"}) == "α 0.5 · keep 0.1"
    assert label_of({"teacher.models": "none", "distill.alpha": "0.5"}) == "no teacher"
    assert label_of({}) == "all runs"


def test_following_writes_at_each_change_and_ends_with_the_sweep(runs, tmp_path):
    folder, written = as_sweep(tmp_path / "s", {"a": students(runs)[:1]}), []

    class Writer:
        def write(self, report, watching=False):
            written.append((len([e for e in report.gathered.entries if e.finished]), watching))
            if len(written) == 1:  # something happens meanwhile
                Journal(folder).write({"id": "run-a-0", "state": "finished", "path": str(students(runs)[1])})
            elif len(written) == 2:
                lead.__exit__(None, None, None)
            return []

    lead = Journal(folder).owned()
    lead.__enter__()
    follow([folder], lambda: make_report([folder]), Writer(), lambda paths: None, every=0.01)
    assert written == [(1, True), (1, True), (1, False)]


SETTINGS = st.fixed_dictionaries({}, optional={
    "seed": st.integers(), "name": st.none() | st.text(max_size=30), "output": st.text(min_size=1, max_size=200),
    "data": st.dictionaries(st.sampled_from(["a", "b_c", "d"]), st.none() | st.text() | st.floats(allow_nan=False)),
    "log_with": st.lists(st.text(max_size=9), max_size=3),
})  # fmt: skip


@given(SETTINGS)
def test_settings_read_in_parts_are_those_read_whole(tmp_path_factory, settings):
    text = yaml.safe_dump(settings, sort_keys=False)
    file = tmp_path_factory.getbasetemp() / "settings.yaml"
    file.write_text(text)
    try:
        whole = parse_yaml(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"settings\.yaml"):
            read_yaml(file)
        return
    assert read_yaml(file) == whole


@pytest.mark.parametrize("text", [
    "a: 1\na: 2\n", "a: 1\n---\nb: 2\n", "a: [1,\nb: 2]\n", 'a: "x\nb: y"\n', "a: &x 1\nb: *x\n", "- a\n", "", "# only",
    "a: {b: 1,\n c: 2}\nd: |\n  e: f\n", "a: 'x\n\n  y'\nb: 1\n", "a: 1\n? b\n: 2\n", "a: 1\nb:\n- c: 1\n", "..x: 1\n",
])  # fmt: skip
def test_odd_settings_read_in_parts_are_those_read_whole(tmp_path, text):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    try:
        whole = parse_yaml(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"settings\.yaml"):
            read_yaml(file)
        return
    assert read_yaml(file) == whole


def test_what_was_read_in_parts_is_nobody_elses(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(to_dict(Config()), sort_keys=False))
    read_yaml(file)["teacher"]["models"].append("x")
    assert read_yaml(file)["teacher"]["models"] == []


@pytest.mark.slow
def test_a_report_of_a_thousand_runs_stays_small():
    words = [sys.executable, "benchmarks/report.py", "--runs", "1000"]  # whose memory is nobody else's
    done = subprocess.run(words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    measured = json.loads(line)
    assert measured["peak_bytes"] < 1.2e9  # nearly all of it is what torch and timm take
    assert measured["html_bytes"] < 10e6
