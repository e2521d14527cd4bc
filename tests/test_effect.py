"""An option that has no effect says so, and is no part of what a run is."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import yaml
from helpers import REPO, config_of, plain, said_by, train

from kdprune.config import Config, config_hash, dotted, from_dict, to_dict
from kdprune.config.conditions import EVERYWHERE
from kdprune.config.effect import declared, in_words, normal_form, without_effect
from kdprune.config.settings import TRAININGS
from kdprune.pipeline.effect import settled, situation_of
from kdprune.sweep.sections import SECTIONS, read_study

# Of each condition a case in which it does not hold: option and value, what is given beside it, the command, records.
RUN = "hf-hub:timm/resnet18.a1_in1k"  # a teacher that has weights, as a name alone shows
CASES = [
    ("data.augment", "flip", {"teacher.models": RUN}, "record teacher"),
    ("data.dataset", "hfds/a", {}, "analyse noise --scores"),
    ("train.lr", 0.3, {"train.lr_base": 0.1}, "train"),
    ("subset.balanced", True, {"subset.keep_fraction": 1.0}, "train"),
    ("subset.class_floor", 5.0, {"subset.keep_fraction": 1.0}, "train"),
    ("train.lr_base_size", 128, {}, "train"),
    ("train.lr_base_scale", "sqrt", {}, "train"),
    ("train.ema_warmup", False, {}, "train"),
    ("subset.keep_fraction", 0.3, {"subset.file": "a.json"}, "train"),
    ("subset.selector", "moderate", {"subset.file": "a.json"}, "train"),
    ("subset.balanced", True, {"subset.file": "a.json"}, "train"),
    ("subset.class_floor", 2.0, {"subset.file": "a.json"}, "train"),
    ("subset.selector", "hardest", {"subset.dynamic": "rs2", "subset.keep_fraction": 0.5}, "train"),
    ("subset.balanced", True, {"subset.dynamic": "rs2", "subset.keep_fraction": 0.5}, "train"),
    ("subset.class_floor", 2.0, {"subset.dynamic": "rs2", "subset.keep_fraction": 0.5}, "train"),
    ("subset.dynamic", "rs2", {}, "train"),
    *((f"subset.{name}", value, {}, "train") for name, value in
      [("scorer", "el2n"), ("scores", "a.parquet"), ("hard", "low"), ("features", "runs/records/a")]),
    *((f"subset.{name}", value, {}, "record dynamics") for name, value in
      [("keep_fraction", 0.3), ("selector", "random()"), ("scorer", "el2n"), ("scores", "a"), ("hard", "low"),
       ("features", "a"), ("balanced", True), ("class_floor", 1.0), ("without_classes", ["1"]), ("file", "a"),
       ("dynamic", "infobatch")]),
    ("student.model", "mlp_64", {"teacher.models": RUN}, "record embeddings"),
    ("student.checkpoint", "a.pth", {"teacher.models": RUN}, "record embeddings"),
    ("student.pretrained", True, {"teacher.models": RUN}, "record embeddings"),
    ("student.pretrained", True, {"student.checkpoint": "a.pth"}, "train"),
    ("student.drop_rate", 0.1, {"teacher.models": RUN}, "record embeddings"),
    ("student.sparsity", 0.5, {"student.mask": "a"}, "train"),
    ("student.pruner", "snip", {"student.mask": "a"}, "train"),
    ("student.mask_check", "shuffle", {}, "train"),
    ("student.prune_scope", "layer", {"student.pattern": "2:4"}, "train"),
    ("student.pattern", "2:4", {"student.mask": "a"}, "train"),
    *((f"student.{name}", value, {}, "train") for name, value in
      [("pruner", "snip"), ("prune_at", "end"), ("prune_scope", "layer"), ("prune_exclude", ["last"]),
       ("allow_collapse", True)]),
    *((f"student.{name}", value, {}, "record dynamics") for name, value in
      [("sparsity", 0.5), ("mask", "a"), ("pruner", "snip"), ("mask_check", "invert"), ("pattern", "2:4")]),
    ("train.epochs", 3.0, {"train.steps": 5}, "train"),
    ("train.budget", "full", {"train.steps": 5}, "train"),
    ("train.momentum", 0.5, {"train.opt": "adamw"}, "train"),
    ("train.min_lr", 0.01, {"train.sched": "none"}, "train"),
    ("train.decay_milestones", [1.0], {}, "train"),
    ("train.decay_rate", 0.5, {}, "train"),
    ("train.lr", 0.5, {"teacher.models": RUN}, "record embeddings"),
    ("train.lr", 0.5, {"record.train.lr": 0.1}, "record dynamics"),
    ("teacher.train.epochs", 3.0, {"teacher.models": "mlp_64", "teacher.train.steps": 5}, "train"),
    ("teacher.train.momentum", 0.5, {"teacher.models": "mlp_64", "train.opt": "adamw"}, "train"),
    ("record.train.decay_rate", 0.5, {}, "record dynamics"),
    *((f"teacher.{name}", value, {}, "train") for name, value in
      [("pretrained", True), ("weights", "learned"), ("temperatures", [2.0]), ("by_correctness", True),
       ("train.lr", 0.1), ("train_fraction", 0.5), ("targets", "cached"), ("views", 3), ("cache", "a"), ("top_k", 3),
       ("engine", "plain")]),
    *((f"teacher.{name}", value, {"teacher.models": RUN}, "train") for name, value in
      [("pretrained", True), ("weights", [1.0]), ("by_correctness", True), ("train.lr", 0.1), ("train_fraction", 0.5),
       ("augment", "flip"), ("drop_rate", 0.1), ("snapshot", 2), ("generations", 2), ("cache", "a"), ("top_k", 3)]),
    *((f"teacher.{name}", value, {"teacher.models": RUN}, "record teacher") for name, value in
      [("weights", [1.0]), ("temperatures", [2.0]), ("by_correctness", True), ("targets", "cached"), ("views", 2),
       ("cache", "a"), ("top_k", 3), ("engine", "plain")]),
    ("teacher.engine", "plain", {"teacher.models": "ema", "train.ema": 0.9}, "train"),
    ("teacher.models", [RUN], {"distill.alpha": 0.0}, "train"),
    ("teacher.views", 2, {"teacher.models": RUN, "distill.alpha": "constant(0)"}, "train"),
    ("distill.loss", "dkd", {}, "train"),
    ("distill.loss", "dkd", {"teacher.models": RUN}, "record teacher"),
    ("distill.loss", "dkd", {"teacher.models": RUN, "distill.alpha": 0}, "train"),
    ("distill.temperature", 2.0, {"teacher.models": RUN, "distill.loss": "mse_logits"}, "train"),
    ("distill.temperature", 2.0, {"teacher.models": RUN, "distill.loss": "kd(temperature=1)"}, "train"),
    ("distill.layers", [["a", "b"]], {"teacher.models": RUN}, "train"),
    ("record.files", ["a"], {}, "train"),
    ("record.files", ["a"], {}, "record dynamics"),
    *((f"record.{name}", value, {}, "train") for name, value in
      [("source", "proxy"), ("model", "mlp_64"), ("repeats", 3), ("view", "training"), ("train.lr", 0.3), ("seed", 3),
       ("epoch", 2), ("train_fraction", 0.5), ("embeddings", RUN)]),
    ("record.repeats", 3, {"record.files": ["a"], "subset.scorer": "el2n", "subset.selector": "hardest"}, "train"),
    ("record.repeats", 3, {}, "record embeddings"),
    ("record.model", "mlp_64", {"teacher.models": "mlp_64", "record.source": "teacher"}, "record dynamics"),
    ("seeds.weights", 3, {}, "record dynamics"),
    ("seeds.data", 3, {}, "record dynamics"),
    ("seeds.teacher", 3, {"teacher.models": RUN}, "train"),
    ("name", "mine", {}, "record dynamics"),
    ("baseline", True, {}, "record dynamics"),
    ("baseline", True, {}, "train"),
    ("baseline", True, {"teacher.models": RUN, "distill.alpha": 0.0}, "train"),
    ("log_with", ["tensorboard"], {"teacher.models": RUN}, "record embeddings"),
    ("track_energy", True, {"teacher.models": RUN}, "record embeddings"),
]  # fmt: skip


def settings(options: dict) -> Config:
    content = to_dict(Config())
    for option, value in options.items():
        *groups, name = option.split(".")
        place = content
        for group in groups:
            place = place[group]
        place[name] = value
    return from_dict(content)


def records_of(command: str) -> list[str]:
    return command.split()[1:] if command.startswith("record") else []


def of(option: str, value, beside: dict, command: str):
    return situation_of(settings({**beside, option: value}), command, records_of(command))


@pytest.mark.parametrize(("option", "value", "beside", "command"), CASES)
def test_an_option_without_effect_says_so_and_is_no_part_of_the_run(caplog, option, value, beside, command):
    situation = of(option, value, beside, command)
    assert option in without_effect(situation)
    with caplog.at_level(logging.WARNING, "kdprune"):
        config = settled(situation.config, command, records_of(command))
    (said,) = [record.getMessage() for record in caplog.records if f"--{option}" in record.getMessage()]
    assert " no effect: " in said
    assert "{" not in said
    without = settled(settings(beside), command, records_of(command))
    assert config == without
    assert config_hash(config) == config_hash(without)


def test_each_condition_of_each_option_is_among_the_cases():
    """Whoever declares a condition adds a case in which it does not hold; settings of a group may share one."""
    shown = set()
    for case in CASES:
        situation = of(*case)
        (one,) = [one for one in declared() if one.name == case[0]]
        for condition in one.conditions:
            asked = list(situation.readers(*one.place)) if condition.of_training else [situation]
            if asked and not any(map(condition.holds, asked)):
                shown.add((one.name.partition(".")[0], condition))
    for one in declared():
        groups = {place.partition(".")[0] for place in TRAININGS if one.place[0] in TRAININGS} | {
            one.name.partition(".")[0]
        }
        for condition in one.conditions:
            seen = condition is EVERYWHERE or any((group, condition) in shown for group in groups)
            assert seen, f"{one.name}: {condition.otherwise}"


def test_what_has_an_effect_is_left_alone():
    """The settings that a condition asks for, and one default each, are no reason to warn."""
    for options in (
        {},
        {"train.sched": "multistep", "train.decay_milestones": [1.0], "train.decay_rate": 0.2},
        {"train.sched": "poly", "train.decay_rate": 2.0, "train.min_lr": 0.01},
        {"train.epochs": 3.0, "train.budget": "full", "train.momentum": 0.5},
        {"teacher.models": "mlp_64", "teacher.views": 2, "baseline": True, "seeds.teacher": 2, "teacher.snapshot": 1},
        {"teacher.models": "mlp_64", "teacher.cache": "a", "distill.alpha": "search"},
        {"teacher.models": "mlp_64", "teacher.targets": "cached", "teacher.top_k": 3, "teacher.cache": "a"},
        {"teacher.models": "mlp_64", "distill.loss": "fitnet", "distill.layers": [["a", "b"]]},
        {"teacher.models": [RUN, RUN + "x"], "teacher.weights": [1.0, 2.0], "distill.loss": "mse_logits",
         "distill.temperature": 3.0},
        {"subset.file": "a", "subset.dynamic": "rs2", "subset.keep_fraction": 0.3},
        {"subset.scorer": "el2n", "subset.selector": "hardest", "record.repeats": 3, "record.train.lr": 0.2},
        {"subset.scorer": "grand", "subset.selector": "hardest", "record.epoch": 3},
        {"subset.selector": "kcenter", "record.embeddings": RUN},
        {"student.sparsity": 0.5, "student.pruner": "snip", "student.prune_at": "500", "student.mask_check": "shuffle"},
        {"student.mask": "a", "student.mask_check": "invert", "student.allow_collapse": True},
        # What the student does not read may be read by who takes it from there.
        {"train.opt": "adamw", "train.momentum": 0.5, "teacher.models": "mlp_64", "teacher.train.opt": "sgd"},
        {"train.decay_milestones": [3.0], "teacher.models": "mlp_64", "teacher.train.sched": "multistep"},
        # A teacher that is not listened to may still be what is observed.
        {"teacher.models": "mlp_64", "distill.alpha": 0.0, "subset.scorer": "teacher_loss",
         "subset.selector": "hardest", "teacher.train.lr": 0.2},
    ):  # fmt: skip
        assert without_effect(situation_of(settings(options))) == {}, options
    assert without_effect(situation_of(settings({"record.epoch": 3}), "record gradients", ["gradients"])) == {}
    assert without_effect(situation_of(settings({"train.lr": 3.0}), "record dynamics", ["dynamics"])) == {}


def test_a_normal_form_is_its_own():
    for case in CASES:
        *_, command = case
        once = normal_form(of(*case))
        assert normal_form(situation_of(once, command, records_of(command))) == once, case


def test_what_is_the_reason_is_not_said_to_be_without_effect():
    assert in_words({"teacher.models": "--distill.alpha is 0", "distill.alpha": "--distill.alpha is 0"}) == [
        "--teacher.models has no effect: --distill.alpha is 0"
    ]


def test_reasons_are_said_once_each():
    lines = in_words({"a": "x", "b": "y", "c": "x"})
    assert lines == ["--a, --c have no effect: x", "--b has no effect: y"]


def test_runs_that_differ_in_dead_settings_alone_are_one(tmp_path, caplog):
    first, path = train(tmp_path)
    again, other = train(tmp_path, {"train.epochs": 3.0, "train.decay_milestones": [1.0], "distill.temperature": 2.0})
    assert (again, other) == (first, path)
    *_, made = [record for record in caplog.records if "no effect" in record.getMessage()]
    assert made
    caplog.clear()
    train(tmp_path, {"log_with": ["tensorboard"]})
    assert "--log_with has no effect" in caplog.text


def test_settings_that_only_the_teacher_reads_are_no_part_of_the_students_key(tmp_path, digits_teacher):
    """The student's optimizer has no momentum; that of the teacher which is trained here has."""
    taught = {"teacher.models": "mlp_64", "train.opt": "adamw", "train.lr": 1e-3, "train.steps": 2}
    keys = [
        train(tmp_path, {**taught, "teacher.train.opt": "sgd", "train.momentum": momentum})[0]["key"]
        for momentum in (0.9, 0.5)
    ]
    assert keys[0]["train"] == keys[1]["train"]
    assert keys[0]["teachers"] != keys[1]["teachers"]


def test_the_key_of_a_run_without_dead_settings_is_that_of_its_settings(tmp_path):
    """So that runs of before are found: all of train.* as it was given."""
    config = config_of(tmp_path, {"train.steps": 2, "train.lr": 0.07})
    summary, _ = train(tmp_path, {"train.steps": 2, "train.lr": 0.07})
    given = dotted(to_dict(config.train))
    key = {name: value for name, value in summary["key"]["train"].items() if value is not None}
    assert {name: given[name] for name in key} == key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train.warmup_epochs": 9.0}, "--train.warmup_epochs: 9 given"),
        ({"subset.keep_fraction": 0.02, "train.steps": 2}, "--train.batch_size: 64 given"),
    ],
)
def test_values_that_do_not_fit_together_warn(tmp_path, caplog, options, said):
    train(tmp_path, options)
    assert said in caplog.text


@pytest.mark.parametrize("recipe", sorted((REPO / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_recipe_has_a_setting_without_effect(recipe):
    content = yaml.safe_load(recipe.read_text())
    sections = {name: content.pop(name) for name in SECTIONS if name in content}
    base = from_dict(content)
    trained = [run.config for run in read_study(recipe.stem, base, sections).runs()] if sections else [base]
    # An arm without a teacher has no use for what the others need.
    assert set.intersection(*(set(without_effect(situation_of(config))) for config in trained)) == set()


COMMANDS = [  # what is typed, and what is said to have no effect
    ("select --selector random --hard low --keep_fraction 0.3", "--hard"),
    ("select --selector random --features x --keep_fraction 0.3", "--features"),
    ("select --keep_fraction 0.3 --figures x", "--figures"),
    ("select --keep_fraction 0.3 --data_root x", "--data_root"),
    ("select --describe SUBSET --hard low --seed 3 --balanced --figures FIGURES", "--balanced, --seed, --hard"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A score file and a subset file."""
    from kdprune.data.scores import Scores

    folder = tmp_path_factory.mktemp("made")
    with_scores = Scores(np.arange(30, dtype=np.float32), np.arange(30) % 3, "print", "x", "high", ("a", "b", "c"))
    with_scores.save(folder / "scores.parquet")
    status, _, err = said_by(["select", "--scores", folder / "scores.parquet", "--keep_fraction", "0.5", "--output",
                              folder / "subset.json"])  # fmt: skip
    assert status == 0, err
    return folder


@pytest.mark.parametrize(("line", "said"), COMMANDS)
def test_options_of_selecting_that_have_no_effect(tmp_path, made, line, said):
    line = line.replace("SUBSET", str(made / "subset.json")).replace("FIGURES", str(tmp_path))
    words = [*line.split(), "--scores", made / "scores.parquet"]
    status, _, err = said_by(words if "--describe" in line else [*words, "--output", tmp_path / "subset.json"])
    assert status == 0, err
    (warned,) = [text for text in err.splitlines() if "no effect" in text]
    assert said in warned


def test_options_of_scoring_that_have_no_effect(tmp_path):
    _, run = train(tmp_path, {"train.steps": None, "train.epochs": 1.0, "train.record": "plain"})
    words = ["score", "el2n(epoch=1)", "--from", run, "--output", tmp_path / "s"]
    status, _, err = said_by(words)
    assert status == 0, err
    assert "no effect" not in err
    (scores,) = (tmp_path / "s").rglob("scores.parquet")
    status, _, err = said_by([*words, "--workers", "1", "--seed", "3", "--scores", scores])
    assert status == 0, err
    for said in ("--workers has no effect: computed in this process: el2n(epoch=1)", "--seed has no effect: no scorer",
                 "--scores has no effect: no scorer"):  # fmt: skip
        assert said in plain(err)
    status, _, err = said_by(["list", "losses", "--filter", "a*"])
    assert "--filter has no effect" in err


def test_a_score_file_is_searched_without_settings_of_trainings(tmp_path, made):
    words = ["analyse", "noise", "--scores", made / "scores.parquet", "--output", tmp_path, "--train.lr", "0.3",
             "--data.val_fraction", "0.5", "--share", "0.1"]  # fmt: skip
    status, _, err = said_by(words)
    assert status == 0, err
    assert "--train.lr has no effect" in plain(err)
    assert "--data.val_fraction has no effect: kdprune analyse noise --scores opens no data" in plain(err)
    assert "--baseline" not in err  # which the demonstration's recipe says, and nobody has typed
