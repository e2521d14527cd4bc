"""What users get for an answer: near names, the option that named a file, silence where nobody reads."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPO, options, plain, said_by, train
from PIL import Image

from kdprune import bars
from kdprune.checks import LARGEST_SEED, check, check_files
from kdprune.cli.logging import log_to_console
from kdprune.cli.mistakes import explain, of_system, with_option
from kdprune.cli.plugins import about, cited
from kdprune.cli.streams import bars_for_people
from kdprune.config import from_dict
from kdprune.registry import KINDS, get, names
from kdprune.teachers.teacher import warn_if_near_chance

OPTIONS = ["--help", "--config", "--seed", "--train.lr", "--teacher.train.lr", "--record.train.lr", "--train.epochs",
           "--record.model", "--student.model", "--teacher.models", "--train.batch_size", "--student.drop_rate",
           "--teacher.drop_rate"]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("--lr 0.1", "--train.lr?"),
        ("--lr=0.1", "--train.lr?"),
        ("--epoch 3", "--train.epochs?"),
        ("--batch-size 3", "--train.batch_size?"),
        ("--model x", "--student.model?"),
        ("--models x", "--teacher.models?"),
        ("--drop_rate .1", "--student.drop_rate or --teacher.drop_rate?"),
        ("--sed 1", "--seed?"),
        ("--trian.lr 1", "--train.lr?"),
    ],
)
def test_an_option_is_known_by_its_last_part_and_by_near_spelling(given, hint):
    assert explain(f"unrecognized arguments: {given}", OPTIONS, given.split()).endswith(f"; did you mean {hint}")


def test_a_group_alone_makes_no_option_near():
    said = explain("unrecognized arguments: --train.nesterov true", OPTIONS, ["--train.nesterov"])
    assert said == "unrecognized arguments: --train.nesterov true"


@pytest.mark.parametrize(("words", "status"), [(["analyse"], 2), (["analyse", "--help"], 0)])
def test_analyse_names_all_that_it_does(words, status):
    code, out, err = said_by(words)
    assert code == status
    assert all(f"analyse {what} " in (out if status == 0 else err) for what in ("noise", "ntk", "barrier", "classes"))


def test_scores_go_into_a_folder(tmp_path):
    code, _, err = said_by(["score", "el2n", "--from", str(tmp_path), "--output", "scores.parquet"])
    assert code == 2
    assert "--output: scores.parquet given" in err


def test_words_without_an_option(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("")
    for word, said in [
        ("configs/x.yaml", "did you mean --config configs/x.yaml?"),
        (str(run), f"did you mean --config {run}/config.yaml"),
        ("resnet18", "--student.model resnet18"),
        ("", "an empty argument"),
    ]:
        assert said in explain(f"unrecognized arguments: {word}", OPTIONS, [word])
    assert "A,B" in explain("unrecognized arguments: b", OPTIONS, ["--teacher.models", "a", "b"])


@pytest.mark.parametrize("words", [["train", ""], ["train", "x.yaml"], ["train", "--lr", "0.1"]])
def test_a_mistake_is_one_line(words):
    status, _, err = said_by(words)
    assert (status, err.count("\n")) == (2, 1)


def test_the_option_that_named_a_file_goes_first():
    given = {"--subset.file": "/a/b.json", "--output": "/a", "--log_with": ["x"], "--scores": ["/a/c.d", "/e.f"]}
    assert with_option("/a/b.json: no such file", given) == "--subset.file: /a/b.json: no such file"
    assert with_option("cannot write /a/runs/x", given) == "--output: cannot write /a/runs/x"
    assert with_option("/e.f is empty", given) == "--scores: /e.f is empty"
    for left in ("--x: /a/b.json", "/ab/c: no such file", "nothing of a file"):
        assert with_option(left, given) == left
    assert of_system(FileNotFoundError(2, "No such file or directory", "/x")) == "no such file or directory: /x"


@pytest.mark.parametrize(
    ("option", "value"),
    [("subset.file", "/no/such.json"), ("student.checkpoint", "/no/such.pth"), ("subset.scores", "/no/s.parquet"),
     ("record.files", ["/no/run"])],
)  # fmt: skip
def test_a_file_that_is_not_there_is_said_before_any_work(option, value):
    group, name = option.split(".")
    with pytest.raises(FileNotFoundError, match=f"^--{option}: '?/no/"):
        check_files(from_dict({group: {name: value}}))


def test_no_number_of_the_system_is_shown(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    words = options(output=blocked / "runs", student__model="mlp_64", train__steps=1)
    status, _, err = said_by(["train", *words])
    assert status == 2
    assert "error: --output: " in err
    assert "Errno" not in err
    status, _, err = said_by(["train", *options(output=tmp_path, subset__file=tmp_path)])
    assert status == 2
    assert f"--subset.file: {tmp_path} is a folder without a subset.json" in plain(err)


OUTPUTS = ("train", "sweep --grid.seed 0,1", "plan --budget 1h", "plan --history", "lottery", "report RUNS")


@pytest.mark.parametrize("line", OUTPUTS)
@pytest.mark.parametrize("place", ["file", "file/runs", "/proc/runs"])
def test_an_output_that_cannot_be_is_named_before_any_work(tmp_path, monkeypatch, line, place):
    """Also where its name has neither a dot nor a slash, by which a message is else known to be of a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "runs").mkdir()
    status, out, err = said_by([*line.replace("RUNS", "runs").split(), "--output", place])
    assert (status, out) == (2, "")
    assert f"error: --output: {place} given" in plain(err)
    assert place.partition("/runs")[0] in plain(err).partition("given")[2] or place == "file"
    assert len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize("line", ["runs file", "report file"])
def test_a_file_is_said_to_be_no_folder_of_runs(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, _, err = said_by(line.split())
    assert status == 2
    assert "file is a file; allowed are run directories" in plain(err)


def test_a_run_directory_stands_for_its_subset(tmp_path):
    _, tenth = train(tmp_path, {"subset.keep_fraction": 0.1, "train.steps": 1})
    summary, _ = train(tmp_path, {"subset.file": str(tenth), "train.steps": 1})
    assert summary["kept"] == 135


@pytest.mark.parametrize("group", [{}, {"seeds": "weights"}, {"seeds": "subset"}, {"record": "seed"}])
def test_seeds_have_an_end(group):
    for seed in (10**29, -(10**29), LARGEST_SEED + 1):
        settings = {name: {of: seed} for name, of in group.items()} or {"seed": seed}
        with pytest.raises(ValueError, match=f"^--.*: {seed} given, allowed are whole numbers"):
            check(from_dict(settings))
    check(from_dict({"seed": LARGEST_SEED, "seeds": {"data": -LARGEST_SEED}}))


def test_the_largest_seed_trains(tmp_path):
    train(tmp_path, {"seed": LARGEST_SEED, "train.steps": 1, "teacher.models": "mlp_64", "teacher.generations": 2})


def test_a_schedule_falls():
    for wrong in (
        {"train": {"min_lr": 0.5}}, {"train": {"sched": "poly", "min_lr": 0.5}},
        {"train": {"min_lr": 0.05}, "teacher": {"train": {"lr": 0.01}}},
        {"record": {"train": {"min_lr": 0.5}}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"train\.min_lr: 0.* given, allowed is at most the learning rate, 0"):
            check(from_dict(wrong))
    check(from_dict({"train": {"min_lr": 0.1}}))
    check(from_dict({"train": {"min_lr": 0.5, "sched": "none"}}))


@pytest.mark.parametrize(
    ("top1", "classes", "warns"),
    [(0.35, 5, False), (0.25, 5, True), (0.12, 10, True), (0.3, 10, False), (0.015, 100, True), (0.05, 100, False),
     (0.53, 2, True), (0.6, 2, False), (0.0015, 1000, True), (0.003, 1000, False)],
)  # fmt: skip
def test_near_chance(caplog, top1, classes, warns):
    warn_if_near_chance("x", top1, classes)
    assert ("near chance" in caplog.text) == warns


def test_features_that_cannot_be_compared_are_named(tmp_path):
    settings = {"teacher.models": "levit_128s", "student.model": "levit_128s", "data.image_size": 224}
    with pytest.raises(ValueError, match=r"^--distill\.layers: features must be N×C×H×W") as refused:
        train(tmp_path, {**settings, "distill.loss": "attention_transfer"})
    assert "the student levit_128s has stages.0: 196×128" in str(refused.value)
    assert "the teacher levit_128s has stages.0: 196×128" in str(refused.value)


@pytest.fixture
def photos(tmp_path):
    """A folder of class folders, as a user has one: no train/, no val/."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.full((8, 8, 3), 40 * label + i, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_a_folder_without_val_is_offered_a_part_of_its_own(tmp_path, photos, memory_gb):
    settings = {"data.dataset": str(photos), "data.root": str(tmp_path / "root"), "data.image_size": 8,
                "data.memory_gb": memory_gb, "data.workers": 0, "train.steps": 2, "train.batch_size": 8}  # fmt: skip
    with pytest.raises(ValueError, match=r"no held-out .*--data\.val_fraction 0\.2"):
        train(tmp_path / "runs", settings)
    summary, run = train(tmp_path / "runs", {**settings, "data.val_fraction": 0.25})
    assert (summary["total"], summary["kept"]) == (40, 30)
    assert summary["test_top1"] is not None
    assert "val_top1" not in summary  # which would be the same
    status, out, err = said_by(["evaluate", run, "--json"])
    assert status == 0, err
    assert f'"top1": {summary["test_top1"]}' in out
    assert '"samples": 10' in out


def test_each_plug_in_says_in_one_line_what_it_is_and_where_it_is_from():
    for kind in KINDS:
        for name in names(kind):
            plugin = get(kind, name)
            assert 10 < len(about(plugin)) < 130, (kind, name, about(plugin))
            assert "\n" not in about(plugin)
            if kind != "scorers" and name != "random":
                assert cited(plugin), (kind, name)
    assert cited(get("losses", "crd")) == "Tian et al., ICLR 2020"


def test_help_opens_with_one_line_and_ten_settings():
    _, out, _ = said_by(["train", "--help"])
    usage, _, needed, *_ = out.split("\n\n")
    assert usage == "usage: kdprune train [--config FILE.yaml] [--SETTING VALUE ...]"
    assert needed.count("\n  --") == 10
    for command in ("evaluate", "score", "select", "list"):
        _, out, _ = said_by([command, "--help"])
        if command == "evaluate":
            assert "{missing,all}" in out
            assert "<function" not in out


def kdprune(*words: str, **pipes):
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen([sys.executable, "-m", "kdprune", *words], env=environment, text=True, cwd=REPO, **pipes)


@pytest.mark.parametrize("words", [["list"], ["list", "models"], ["train", "--help"]])
def test_a_reader_who_leaves_is_no_error(words):
    running = kdprune(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait() == 141


def test_bars_are_for_terminals(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        with bars_for_people(), log_to_console():
            assert bars.shown() is terminal
            assert ("TQDM_DISABLE" in os.environ) is not terminal
        assert "TQDM_DISABLE" not in os.environ


def test_no_bar_goes_into_a_file(tmp_path, photos):
    """Of kdprune's own, and of a library that makes one as torchvision does."""
    script = (
        "from kdprune.cli import main\n"
        "import kdprune.cli.commands as c\n"
        "def bars(options):\n    import tqdm\n    list(tqdm.tqdm(range(3)))\n    return 0\n"
        "c.COMMANDS['list'] = (c.COMMANDS['list'][0], bars, '')\n"
        "main(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO)
    assert (done.returncode, done.stderr) == (0, "")
    words = options(data__dataset=photos, data__root=tmp_path / "root", data__val_fraction=0.2, output=tmp_path / "o",
                    student__model="mlp_64", train__steps=1, train__batch_size=8)  # fmt: skip
    _, _, err = said_by(["train", *words])
    assert "%|" not in err
