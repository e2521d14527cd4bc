"""Study files: the runs that axes come to, and whatever can be wrong with them."""

from __future__ import annotations

import itertools

import pytest
import yaml
from helpers import said_by
from hypothesis import given
from hypothesis import strategies as st

from kdprune.config import Config, TeacherConfig, config_hash, from_dict
from kdprune.sweep.sections import read_study
from kdprune.sweep.study import is_seed, value_words, with_settings, words
from kdprune.sweep.tuning import arms, at_an_end, choose, confounded
from kdprune.sweep.words import sections_of, split, values_of

VALUES = {
    "seed": st.integers(0, 50),
    "seeds.data": st.integers(0, 50),
    "subset.keep_fraction": st.floats(0.01, 1),
    "train.lr": st.floats(0.001, 1),
    "train.epochs": st.integers(1, 99),
    "student.model": st.sampled_from(["mlp_64", "mlp_800", "cifar_resnet8"]),
    "train.budget": st.sampled_from(["subset", "full"]),
}


def axes(most: int = 3) -> st.SearchStrategy[dict[str, list[object]]]:
    names = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=most, unique=True)
    return names.flatmap(
        lambda names: st.fixed_dictionaries(
            {name: st.lists(VALUES[name], min_size=1, max_size=3, unique=True) for name in names}
        )
    )


@given(axes())
def test_a_grid_is_every_combination_once_in_the_order_of_its_axes(grid):
    runs = read_study("x", Config(), {"grid": grid}).runs()
    expected = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    assert [run.coordinates for run in runs] == expected
    for run in runs:
        content = {"baseline": False, **run.coordinates}
        assert run.config == with_settings(Config(), content | {"baseline": False})


@given(axes(), st.data())
def test_what_is_excluded_is_missing_and_nothing_else(grid, data):
    study = read_study("x", Config(), {"grid": grid})
    excluded = data.draw(st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in grid.items()}))
    every = study.runs()
    left = [run for run in every if not all(run.coordinates[name] == value for name, value in excluded.items())]
    if not excluded:
        return
    study = read_study("x", Config(), {"grid": grid, "exclude": [excluded]})
    if not left:
        with pytest.raises(ValueError, match="exclude"):
            study.runs()
    else:
        assert study.runs() == left


@given(axes())
def test_the_command_line_says_what_the_file_says(grid):
    typed = [word for name, values in grid.items() for word in (f"--grid.{name}", ",".join(map(repr_of, values)))]
    rest, sections = sections_of(["--jobs", "2", *typed])
    assert rest == ["--jobs", "2"]
    of_file = read_study("x", Config(), yaml.safe_load(yaml.safe_dump({"grid": grid}, sort_keys=False)))
    assert read_study("x", Config(), sections).runs() == of_file.runs()


def repr_of(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


@given(st.lists(st.text(st.characters(exclude_characters="()[]{},'\""), min_size=1).map(str.strip), min_size=1))
def test_a_text_is_parted_at_its_commas(parts):
    assert split(",".join(parts), ",") == parts


def test_commas_in_brackets_part_nothing():
    assert values_of("ccs(beta=0.1, x=2),random") == ["ccs(beta=0.1, x=2)", "random"]
    assert values_of("[a,b],c,null") == [["a", "b"], "c", None]
    assert values_of("[0.1, 0.2]") == [0.1, 0.2]
    assert values_of("'a,b',c") == ["a,b", "c"]


def test_zipped_values_go_together_and_arms_have_names():
    study = read_study(
        "x",
        Config(teacher=TeacherConfig(models="mlp_64")),
        {
            "zip": {"subset.keep_fraction": [0.1, 0.5], "train.epochs": [60, 15]},
            "arms": {"none": {"teacher.models": None}, "kd": {"distill": {"alpha": 0.5}}},
            "grid": {"seed": [0, 1]},
        },
    )
    runs = study.runs()
    assert len(runs) == 8
    assert {(run.config.subset.keep_fraction, run.config.train.epochs) for run in runs} == {(0.1, 60), (0.5, 15)}
    assert {run.coordinates["arm"]: run.config.teacher.models for run in runs} == {"none": [], "kd": ["mlp_64"]}
    assert words(runs[0].arm) == "subset.keep_fraction 0.1, train.epochs 60, arm none"
    assert all(not run.config.baseline for run in runs)


def test_without_a_teacher_a_run_is_one_whatever_is_said_of_teachers():
    base = Config(teacher=TeacherConfig(models="mlp_64", targets="cached"))
    study = read_study("x", base, {"grid": {"teacher.models": [None, "mlp_64"], "distill.alpha": [0.5, 1.0]}})
    plain, other, *guided = study.runs()
    assert plain.id == other.id
    assert plain.config.teacher == TeacherConfig()
    assert len({run.id for run in guided}) == 2


def test_a_teachers_seed_makes_no_repetitions_of_runs_without_one():
    base = Config(teacher=TeacherConfig(models="mlp_64"))
    grid = {"teacher.models": [None, "mlp_64"], "seed": [0, 1], "seeds.teacher": [0, 1]}
    runs = read_study("x", base, {"grid": grid}).runs()
    assert len({run.id for run in runs if not run.config.teacher.models}) == 2
    assert len({run.id for run in runs if run.config.teacher.models}) == 4


MISTAKES = {  # sections, and what the answer must name
    "unknown": ({"grid": {"train.lrr": [1]}}, ["'train.lrr'", "train.lr"]),
    "group": ({"grid": {"train": [1]}}, ["'train'", "train.lr"]),
    "of a sweep": ({"grid": {"output": ["a", "b"]}}, ["grid.output"]),
    "type": ({"grid": {"seed": [0], "train.lr": [0.1, "fast"]}}, ["grid.train.lr: 'fast'", "a number"]),
    "type in an arm": ({"arms": {"a": {"train.epochs": "many"}}}, ["arms.a.train.epochs: 'many'", "a number"]),
    "type of what is tuned": ({"tune": {"train.lr": ["fast"]}}, ["tune.train.lr: 'fast'"]),
    "range": ({"grid": {"subset.keep_fraction": [0.5, 2.0]}}, ["keep_fraction 2", "--subset.keep_fraction: 2.0"]),
    "no list": ({"grid": {"seed": 3}}, ["grid.seed: 3", "[A, B]"]),
    "empty list": ({"grid": {"seed": []}}, ["grid.seed: an empty list"]),
    "empty grid": ({"grid": {}}, ["grid: no axis"]),
    "nothing": ({}, ["grid: no axis"]),
    "value twice": ({"grid": {"seed": [0, 1, 0]}}, ["grid.seed: 0 given twice"]),
    "tuned value twice": ({"tune": {"train.lr": [0.1, 0.1]}}, ["tune.train.lr: 0.1 given twice"]),
    "zipped values twice": ({"zip": {"seed": [0, 1, 0], "train.lr": [1, 1, 1]}}, ["seed, train.lr: 0, 1 given twice"]),
    "two axes": ({"grid": {"seed": [0]}, "zip": {"seed": [1]}}, ["seed: given on two axes"]),
    "lengths": ({"zip": {"seed": [0, 1], "train.lr": [0.1]}}, ["zip", "2 of seed", "1 of train.lr"]),
    "all excluded": ({"grid": {"seed": [0]}, "exclude": [{"seed": 0}]}, ["exclude: no run"]),
    "excluded axis": ({"grid": {"seed": [0]}, "exclude": [{"sed": 0}]}, ["'sed'", "seed?"]),
    "excluded value": ({"grid": {"seed": [0, 1]}, "exclude": [{"seed": 2}]}, ["exclude.seed: 2", "0, 1"]),
    "tuned seed": ({"tune": {"seed": [0, 1]}}, ["tune.seed"]),
    "tuned axis": ({"grid": {"seed": [0], "train.lr": [1, 2]}, "tune": ["train.lrr"]}, ["'train.lrr'", "train.lr?"]),
    "same arms": ({"arms": {1: {}, "1": {}}}, ["arms: '1'", "two"]),
    "value twice, as text": ({"grid": {"seed": ["0", 1, 0]}}, ["grid.seed: 0 given twice"]),
    "teacher twice": ({"grid": {"teacher.models": ["mlp_64", ["mlp_64"]]}}, ["grid.teacher.models", "given twice"]),
    "no teacher twice": ({"grid": {"teacher.models": [None, []]}}, ["grid.teacher.models", "given twice"]),
    "tuned twice, as text": ({"tune": {"train.lr": [0.1, "0.1"]}}, ["tune.train.lr: 0.1 given twice"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    sections, named = MISTAKES[name]
    with pytest.raises(ValueError, match=r".") as refused:
        read_study("x", Config(), sections).runs()
    assert all(part in str(refused.value) for part in named), refused.value


COMMANDS = {
    "sweep --grid.train.lrr 1": ["'train.lrr'", "train.lr"],
    "sweep --grid.seed": ["--grid.seed: a value must follow"],
    "sweep --grid.seed 0 --grid.seed 1": ["--grid.seed: given twice"],
    "sweep --arms.a train.lr": ["--arms.a: 'train.lr'", "NAME=VALUE"],
    "sweep": ["grid: no axis"],
    "sweep --grid.seed 0,1 --jobs 0": ["--jobs: 0"],
    "sweep --grid.seed 0,1 --jobs 999 --processes 2 --train.batch_size 3": ["--jobs: 999", "--train.batch_size: 3"],
    "sweep --grid.seed 0,1 --retry -1": ["--retry: -1"],
    "sweep --grid.seed 0,1 --launcher lokal": ["--launcher", "local"],
    "sweep --grid.seed 0,1 --name a/b": ["--name: 'a/b'"],
    "sweep --grid.seed 0,1 --jbos 2": ["--jobs?"],
    "sweep --grid.student.model mlp_64,mlp_46x": ["student.model mlp_46x", "'mlp_46x'"],
    "sweep --tune.train.lr 0.1,0.2 --tune_val_fraction 1": ["--tune_val_fraction: 1"],
    "sweep --tune.train.lr 0.1,0.2 --tune_seeds 0": ["--tune_seeds: 0"],
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_mistake_on_the_command_line_is_named_before_anything_runs(line, tmp_path):
    status, _, said = said_by([*line.split(), "--output", tmp_path])
    assert status == 2
    assert all(part in said for part in COMMANDS[line]), said
    assert not list(tmp_path.iterdir())


def test_two_arms_of_one_name_in_a_file_are_refused(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("arms:\n  a: {train.lr: 0.1}\n  b: {train.lr: 0.2}\n  a: {train.lr: 0.3}\n")
    status, _, said = said_by(["sweep", "--config", file, "--output", tmp_path / "out"])
    assert (status, "'a'" in said) == (2, True)


def test_the_command_line_replaces_axes_of_the_file(tmp_path):
    from kdprune.cli import parse

    file = tmp_path / "study.yaml"
    file.write_text("train: {lr: 0.3}\ngrid: {seed: [0, 1], train.epochs: [3]}\nexclude: {seed: 1}\n")
    options = parse(["sweep", "--config", str(file), "--grid.seed=5,6", "--exclude", "seed=6", "--train.lr", "0.2"])[1]
    assert options.grid == {"seed": [5, 6], "train.epochs": [3]}
    assert options.exclude == [{"seed": 1}, {"seed": 6}]
    assert options.config_object.train.lr == 0.2


@pytest.mark.parametrize(("content", "option"), [
    ("zip: [{train.lr: [1, 2], seed: [0, 1]}]\n", "--zip.train.epochs=1,2"),
    ("grid: {train.lr: [1, 2], seed: [0, 1]}\ntune: [train.lr]\n", "--tune.train.epochs=1,2"),
])  # fmt: skip
def test_what_the_file_lists_is_not_dropped_for_an_option(content, option, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(content)
    status, _, said = said_by(["sweep", "--config", file, option, "--output", tmp_path / "out"])
    assert status == 2
    assert option.partition("=")[0] in said
    assert "by names" in said


def study(**sections):
    base = from_dict({"teacher": {"models": "mlp_64"}})
    return read_study("x", base, sections)


def test_an_arm_is_what_differs_in_seeds_only_and_tries_every_choice():
    tuned = study(grid={"seed": [0, 1, 2], "subset.keep_fraction": [0.1, 1.0]}, tune={"train.lr": [0.1, 0.2]})
    found = arms(tuned, 0.1, seeds=2)
    assert [arm.coordinates for arm in found] == [{"subset.keep_fraction": 0.1}, {"subset.keep_fraction": 1.0}]
    for arm in found:
        assert [run.coordinates["seed"] for run in arm.runs] == [0, 1, 2]
        assert all(run.config.data.val_fraction == 0 for run in arm.runs), "final runs use the whole training set"
        assert [trial.values for trial in arm.trials] == [{"train.lr": 0.1}, {"train.lr": 0.2}]
        for trial in arm.trials:
            assert [run.config.data.val_fraction for run in trial.runs] == [0.1, 0.1]
            assert [run.config.train.lr for run in trial.runs] == [trial.values["train.lr"]] * 2
    marked = study(grid={"seed": [0], "train.lr": [0.1, 0.2]}, tune=["train.lr"])
    assert len(marked.runs()) == 1
    assert marked.tuned == {"train.lr": [0.1, 0.2]}


def test_a_study_keeps_its_name_whatever_it_tunes():
    base = Config()
    assert read_study("mine", base, {"tune": {"train.lr": [0.1, 0.2]}, "exclude": []}).name == "mine"


def test_a_recipe_with_a_validation_part_keeps_it():
    base = from_dict({"data": {"val_fraction": 0.2}})
    (arm,) = arms(read_study("x", base, {"tune": {"train.lr": [0.1, 0.2]}}))
    assert {run.config.data.val_fraction for trial in arm.trials for run in trial.runs} == {0.2}
    assert arm.trials[0].runs[0].id == arm.runs[0].id


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 9)) | st.none(), min_size=1, max_size=5))
def test_the_choice_is_the_best_on_the_validation_part(results):
    values = [0.1 * (index + 1) for index in range(len(results))]
    (arm,) = arms(study(tune={"train.lr": values}))
    summaries = {}
    for trial, result in zip(arm.trials, results, strict=True):
        row = result and {"val_top1": result[0], "val_loss": result[1], "train_seconds": 1.0, "test_top1": -result[0]}
        summaries[trial.runs[0].id] = row
    choice = choose(arm.trials, summaries)
    finished = [(top1, -loss) for top1, loss in filter(None, results)]
    if not finished:
        assert choice is None
        return
    assert choice is not None
    assert len(choice.curve) == len(values)
    index = values.index(choice.values["train.lr"])
    assert (results[index][0], -results[index][1]) == max(finished)
    assert sum(row["train_seconds"] for row in choice.curve) == len(finished)


def test_means_over_seeds_decide_and_a_failed_run_rules_its_value_out():
    (arm,) = arms(study(grid={"seed": [0, 1]}, tune={"train.lr": [0.1, 0.2, 0.4]}), seeds=2)
    top1 = [[0.5, 0.7], [0.9, 0.2], [0.99, None]]
    summaries = {
        run.id: None if value is None else {"val_top1": value, "val_loss": 1.0, "train_seconds": 1.0}
        for trial, values in zip(arm.trials, top1, strict=True)
        for run, value in zip(trial.runs, values, strict=True)
    }
    choice = choose(arm.trials, summaries)
    assert choice is not None
    assert choice.values == {"train.lr": 0.1}
    assert choice.curve[2]["val_top1"] is None
    assert at_an_end(choice.values, choice.curve) == {"train.lr": "smallest"}
    curve = [{"train.lr": lr, "distill.loss": "kd"} for lr in (0.1, 0.2, 0.4)]
    for lr, ends in ((0.1, {"train.lr": "smallest"}), (0.2, {}), (0.4, {"train.lr": "largest"})):
        assert at_an_end({"train.lr": lr, "distill.loss": "kd"}, curve) == ends
    assert at_an_end({"train.lr": 0.1}, curve[:1]) == {}, "nothing was chosen from"


def test_unequal_arms_at_one_learning_rate_are_warned_of():
    assert "distill.alpha" in str(confounded(study(grid={"distill.alpha": [0.5, 1.0]})))
    assert "without a teacher" in str(confounded(study(arms={"none": {"teacher.models": None}, "kd": {}})))
    assert confounded(study(grid={"distill.alpha": [0.5, 1.0]}, tune={"train.lr": [0.1, 0.2]})) is None
    assert confounded(study(grid={"subset.keep_fraction": [0.5, 1.0]})) is None


def test_words():
    assert value_words([]) == value_words(None) == "none"
    assert value_words(["a", "b"]) == "a+b"
    assert [value_words(value) for value in (0.1, 1e-05, 15.0, 1e30)] == ["0.1", "1e-05", "15", "1e+30"]
    assert value_words(0.12345678) != value_words(0.12345679), "two values are two arms"
    assert is_seed("seeds.data")
    assert not is_seed("record.seed")
    assert config_hash(with_settings(Config(), {})) == config_hash(Config())
