"""The command line: quick to answer, and kind about mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml
from helpers import only_run, options, plain, said_by, script

from kdprune.cli import commands as cli
from kdprune.config import Config, from_dict, to_dict
from kdprune.messages import counted

MISTAKES = {  # a line, and what the answer must name: the option, what was given, what is allowed or near
    "trian": ["'trian'", "'train'", "evaluate"],
    "train --trian.lr 1": ["--trian.lr", "--train.lr?"],
    "train --train.lrr=1": ["--train.lr?"],
    "train --train.epoch 3": ["--train.epochs?"],
    "train --teacher.models a b": ["A,B"],
    "train --train.epochs": ["--train.epochs: "],
    "train --train.lr fast": ["--train.lr: 'fast'", "a number"],
    "train --seed 1.5": ["--seed: '1.5'", "a whole number"],
    "train --train.steps 1e3": ["--train.steps: '1e3'", "a whole number or null"],
    "train --baseline yess": ["--baseline: 'yess'", "true or false"],
    "train --train.save_epochs [a]": ["--train.save_epochs: 'a'", "a list of whole numbers"],
    "train --train.sched cosin": ["--train.sched", "cosine or multistep or poly or onecycle or none", "cosine?"],
    "train --config /no/such.yaml": ["--config: ", "'/no/such.yaml'"],
    "train --subset.keep_fraction 0": ["--subset.keep_fraction: 0.0", "(0, 1]"],
    "train --subset.keep_fraction 1.2": ["--subset.keep_fraction: 1.2", "(0, 1]"],
    "train --subset.selector randm": ["--subset.selector: ", "'randm'", "'random'?"],
    "train --data.augment crap": ["--data.augment: ", "'crap'", "'crop'?"],
    "train --distill.alpha linaer(1,0.5)": ["--distill.alpha: ", "'linaer'", "'linear'?"],
    "train --distill.alpha 2": ["--distill.alpha: 2.0", "[0, 1]"],
    "train --distill.loss kdd": ["--distill.loss: ", "'kdd'", "'kd'?"],
    "train --train.checkpoint_every often": ["--train.checkpoint_every: 'often'", "'5min'"],
    "train --teacher.models a,b --teacher.weights [1]": ["--teacher.weights: 1", "2 teachers (a, b)"],
    "evaluate": [": run"],
    "evaluate x --jsn": ["--json?"],
}


def run(capsys, *words: str) -> tuple[int, str, str]:
    try:
        status = cli.main(list(words))
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_in_words(capsys, line):
    status, out, err = run(capsys, *line.split())
    assert status == 2
    assert plain(err).startswith("error: ")
    for name in MISTAKES[line]:
        assert name in plain(err)
    assert not out


def test_answers_come_at_once_and_without_torch(tmp_path):
    """Every mistake above, all helps, --print_config and a list of runs, in a process that imported nothing before."""
    lines = [line.split() for line in MISTAKES]
    lines += [[], ["--help"], ["--version"], *([name, "--help"] for name in ("train", "evaluate", "list"))]
    lines += [["train", "--print_config"], ["runs", str(tmp_path)]]
    script = f"""
import sys
from kdprune.cli import commands as cli
from kdprune.cli import main
for line in {lines!r}:
    try:
        main(line)
    except SystemExit:
        pass
    heavy = {{"torch", "timm", "accelerate", "datasets", "scipy", "numpy", "sklearn"}} & set(sys.modules)
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("rank", "status", "said"), [("0", 2, "error: x\n"), ("1", 2, "process 1: error: x\n"),
                                                      ("1", 130, "")])  # fmt: skip
def test_an_error_is_said_by_the_process_that_meets_it(capsys, monkeypatch, rank, status, said):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(cli, "MAIN_FIRST", 0)
    assert cli._say("error: x", status) == status
    assert capsys.readouterr().err == said


def test_help_names_every_setting(capsys):
    _, out, _ = run(capsys, "train", "--help")
    for group, values in to_dict(Config()).items():
        for name in [f"{group}.{key}" for key in values] if isinstance(values, dict) else [group]:
            assert f"--{name}" in out
    assert "How the kept samples are chosen" in plain(out)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_types_and_choices(capsys, command):
    _, out, _ = run(capsys, *command.split(), "--help")
    assert "<function" not in out


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (1347, "1,347 classes")]
)
def test_a_number_agrees_with_its_noun(count, said):
    assert counted(count, "class") == said
    assert counted(count, "sample") == said.replace("classes", "samples").replace("class", "sample")


def test_print_config_is_a_recipe(capsys, tmp_path):
    _, out, _ = run(capsys, "train", "--train.lr", "0.3", "--teacher.models", "a,b", "--print_config")
    printed = from_dict(yaml.safe_load(out))
    assert printed.train.lr == 0.3
    assert printed.teacher.models == ["a", "b"]
    (tmp_path / "c.yaml").write_text(out)
    _, again, _ = run(capsys, "train", "--config", str(tmp_path / "c.yaml"), "--print_config")
    assert from_dict(yaml.safe_load(again)) == printed


@pytest.mark.parametrize("words", [[], ["--seed", "1"], ["--train.epochs=3", "--subset.keep_fraction", "0.2"]])
@pytest.mark.parametrize("command", ["train", "cache", "record dynamics", "analyse noise"])
def test_without_a_recipe_and_data_it_is_the_demonstration(capsys, command, words):
    _, out, _ = run(capsys, *command.split(), *words, "--print_config")
    demonstration = yaml.safe_load(cli.DEFAULT_RECIPE.read_text())
    expected = from_dict({**demonstration, "seed": 1 if "--seed" in words else 0})
    if len(words) > 1 and "--seed" not in words:
        expected.train.epochs, expected.subset.keep_fraction = 3, 0.2
    printed = yaml.safe_load(out)
    assert from_dict({name: printed[name] for name in to_dict(expected)}) == expected
    assert cli.parse([*command.split(), *words])[1].config_object == expected
    assert "this is the demonstration, digits_random50.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--data.dataset=digits"], ["--data.dataset", "digits"], ["--config", "c.yaml"]])
def test_with_a_recipe_or_data_it_is_not(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("seed: 0\n")
    _, out, err = run(capsys, "train", *words, "--train.lr", "0.3", "--print_config")
    expected = Config()
    expected.train.lr = 0.3
    assert from_dict(yaml.safe_load(out)) == expected
    assert not err


def test_options_go_before_the_file(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("train:\n  lr: 0.3\n  epochs: 7\n")
    _, out, _ = run(capsys, "train", "--config", str(tmp_path / "c.yaml"), "--train.lr", "0.2", "--print_config")
    merged = from_dict(yaml.safe_load(out))
    assert (merged.train.lr, merged.train.epochs) == (0.2, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lrr: 1\n", r"'train\.lrr'.*train\.lr\?"),
        ("tarin:\n  lr: 1\n", r"'tarin\.lr'.*train\.lr\?"),
        ("train:\n  sched: cosin\n", "--train.sched: 'cosin'.*cosine"),
        ("train: [\n", "config"),
    ],
)
def test_a_mistake_in_a_file_is_answered_in_words(capsys, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    status, _, err = run(capsys, "train", "--config", str(tmp_path / "c.yaml"))
    assert status == 2
    assert re.search(message, plain(err))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--student.model resnet81", "'resnet81'.*'resnet18'"),
        ("--train.opt sdg", "--train.opt: .*'sdg'.*'sgd'"),
        ("--teacher.models /no/such/run", "/no/such/run"),
        ("--data.dataset digist", "'digist'.*'digits'"),
        ("--subset.file /no/such.json", "/no/such.json"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_before_any_training(capsys, tmp_path, line, message):
    status, _, err = run(capsys, "train", f"--output={tmp_path}", "--train.steps=1", *line.split())
    assert status == 2
    assert re.search(message, plain(err))
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_lists(capsys):
    status, out, _ = run(capsys, "list", "losses")
    assert status == 0
    assert out.splitlines()[0] == "losses:"
    (of_kd,) = [line for line in out.splitlines() if line.startswith("  kd(temperature) ")]
    assert "Hinton's distillation" in of_kd
    assert "Hinton et al. 2015" in of_kd
    _, out, _ = run(capsys, "list", "models")
    assert out.splitlines()[1].startswith("  lenet_300_100")  # kdprune's own go first
    assert out.splitlines().index("  cifar_resnet8") < out.splitlines().index("  resnet18")
    _, out, _ = run(capsys, "list", "models", "--filter", "cifar_resnet*")
    assert {"cifar_resnet8", "cifar_resnet56"} <= set(out.split())
    status, out, _ = run(capsys, "list", "scorers")
    assert status == 0
    for words in (
        ["el2n(epoch)", "dynamics", "high", "needed", "2107.07075"], ["aum(epochs)", "dynamics", "low", "2001.10528"],
        ["kcenter(keep_fraction)", "embeddings", "no"], ["d2(k, gamma, keep_fraction)", "scores"],
    ):  # fmt: skip
        assert any(all(word in line for word in words) for line in out.splitlines()), words
    _, out, _ = run(capsys, "list")
    for kind in ("losses:", "scorers:", "selectors:", "models:"):
        assert kind in out.splitlines()
    status, _, err = run(capsys, "list", "losess")
    assert status == 2
    assert "'losess'" in err
    assert "'losses'" in err


def test_evaluate_prints_one_json_object(digits_teacher):
    status, out, err = said_by(["evaluate", digits_teacher, "--json"])
    assert status == 0, err
    result = json.loads(out)
    summary = json.loads((digits_teacher / "summary.json").read_text())
    assert result["top1"] == summary["test_top1"]
    assert result["loss"] == pytest.approx(summary["test_loss"])
    assert result["top1"] <= result["top5"] <= 1
    assert len(result["per_class"]) == len(result["classes"]) == 10
    assert 0 <= result["calibration_error"] <= 1
    assert result["samples"] == 450


def test_evaluate_refuses_what_is_no_finished_run(capsys, tmp_path, digits_teacher):
    status, _, err = run(capsys, "evaluate", str(tmp_path))
    assert status == 2
    assert "config.yaml" in plain(err)
    (tmp_path / "config.yaml").write_text((digits_teacher / "config.yaml").read_text())
    status, _, err = run(capsys, "evaluate", str(tmp_path))
    assert status == 2
    assert "student.safetensors" in plain(err)


def test_a_runs_own_config_repeats_the_run(tmp_path):
    """What a run wrote down is all that it takes; the run is recognised, and nothing is trained."""
    words = options(
        output=tmp_path, data__dataset="digits", data__augment="crop(1)", student__model="mlp_64", train__steps=3
    )
    status, table, err = said_by(["train", *words])
    assert status == 0, err
    assert "student mlp_64 without KD" in table
    made = only_run(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    status, again, err = script("train.py", ["--config", made / "config.yaml"])
    assert (status, again) == (0, table)
    assert f"{made} is finished" in err
    assert {file: file.stat().st_mtime_ns for file in made.rglob("*")} == before
