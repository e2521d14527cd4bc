"""`kdprune analyse` as a user types it: what it finds where the answer is known, what it writes, what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers import options, plain, said_by, train

from kdprune.cli import commands
from kdprune.data.scores import Scores, load_scores
from kdprune.data.sources import open_source

TINY = options(
    data__dataset="digits", data__augment="crop(1)", student__model="mlp_64", train__batch_size=64, train__lr=0.05,
    train__precision="no", train__sched="none", train__eval_every=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    settings = {"train.steps": None, "train.epochs": 3, "train.save_epochs": [1, 2, 3], "train.save_steps": [5]}
    return train(tmp_path_factory.mktemp("parent"), settings)[1]


@pytest.fixture(scope="module")
def scores(tmp_path_factory, parent) -> Path:
    """Of the digits; the values mean nothing."""
    from kdprune.data.fingerprint import identify

    source = open_source("digits", "train")
    path = tmp_path_factory.mktemp("made_up") / "scores.parquet"
    values = np.sin(np.arange(len(source))).astype(np.float32)
    Scores(values, source.labels, identify(source).fingerprint, "made_up", "high", tuple(source.classes)).save(path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def planted(output: Path, *words: object) -> tuple[dict[str, dict[str, str]], Path, tuple[int, str, str]]:
    """The table of detectors on digits of which a tenth is labelled wrongly, its folder, and what was said."""
    said = said_by(["analyse", "noise", *TINY, "--output", output, "--planted", 0.1, "--record.view=training", *words])
    assert said[0] == 0, said[2]
    (folder,) = (output / "noise").iterdir()
    return {row["detector"]: row for row in rows(folder / "noise.csv")}, folder, said


def test_planted_wrong_labels_are_found(tmp_path):
    table, folder, _ = planted(tmp_path, "--detectors", "aum", "--train.epochs=6")
    assert int(table["aum"]["flagged"]) == 135
    assert float(table["aum"]["auroc"]) > 0.9
    suspects = rows(folder / "suspects_aum.csv")
    truth = open_source("digits", "train").labels
    for row in suspects:
        assert int(row["true_label"]) == truth[int(row["sample_id"])]
        assert (row["label"] != row["true_label"]) == (row["planted"] == "True")
    assert sum(row["planted"] == "True" for row in suspects) == int(table["aum"]["found"])
    assert [float(row["score"]) for row in suspects] == sorted(float(row["score"]) for row in suspects)
    assert is_png(folder / "noise.png")


@pytest.mark.slow
def test_the_indicator_class_finds_them_without_being_told_how_many(tmp_path):
    table, folder, (_, out, complaints) = planted(tmp_path, "--train.epochs=30", "--train.lr=0.1")
    assert "3 trainings of 30 epochs over 1,347 samples" in complaints
    assert list(table) == ["el2n", "aum", "aum_indicator"]
    assert float(table["aum_indicator"]["recall"]) > 0.9
    assert float(table["aum_indicator"]["precision"]) > 0.7
    indicator = load_scores(folder / "aum_indicator.parquet")
    assert (indicator.values <= 0).sum() == int(table["aum_indicator"]["flagged"])
    _, _, (_, again, complaints) = planted(tmp_path, "--train.epochs=30", "--train.lr=0.1")
    assert plain(again) == plain(out)
    assert "epoch 1/30" not in complaints  # nothing was trained twice


def test_suspects_of_a_score_file(tmp_path, scores):
    status, out, complaints = said_by(["analyse", "noise", "--scores", scores, "--share", 0.02, "--output", tmp_path])
    assert status == 0, complaints
    suspects = rows(tmp_path / "noise" / scores.parent.name / "suspects.csv")
    expected = np.argsort(-np.sin(np.arange(1347)).astype(np.float32))[:27]
    assert [int(row["sample_id"]) for row in suspects] == expected.tolist()
    assert suspects[0]["class"] == suspects[0]["label"]  # the digits' names
    assert "27 of 1,347 labels are suspect" in plain(out)
    assert is_png(tmp_path / "noise" / scores.parent.name / "noise.png")


def test_the_velocity_of_kernels(tmp_path, parent, scores):
    words = ["analyse", "ntk", parent, "--scores", scores, "--size", 4, "--windows", 3, "--output", tmp_path]
    status, out, complaints = said_by(words)
    assert status == 0, complaints
    assert "360 backward passes" in complaints  # 3 snapshots, 3 windows, 4 samples, 10 classes
    found = rows(tmp_path / "ntk.csv")
    assert [(row["from"], row["to"]) for row in found] == [("1", "2")] * 3 + [("2", "3")] * 3
    assert all(0 < float(row["velocity"]) < 1 for row in found)
    assert "1 → 2" in out
    assert is_png(tmp_path / "ntk.png")
    assert said_by([*words, "--at", "step5", "3"])[0] == 0
    assert {(row["from"], row["to"]) for row in rows(tmp_path / "ntk.csv")} == {("step5", "3")}


def test_the_barrier_between_children(tmp_path, parent, scores):
    words = ["analyse", "barrier", parent, "--scores", scores, "--spawn", 0, "2", "--output", tmp_path]
    status, _, complaints = said_by([*words, "--parts", 2, "--points", 3])
    assert status == 0, complaints
    assert "4 children" in complaints
    found = rows(tmp_path / "barrier.csv")
    assert [row["step"] for row in found] == ["0", "0", "43", "43"]  # 2 epochs of 1,347 samples in 64s
    assert all(0 <= float(row["barrier"]) <= 1 for row in found)
    children = [path.parent for path in (tmp_path / "children").glob("*/student.safetensors")]
    assert len(children) == 4
    assert is_png(tmp_path / "barrier.png")


def test_the_effect_of_pruning_on_classes(tmp_path, parent):
    pruned = train(tmp_path / "runs", {"subset.keep_fraction": 0.1, "train.steps": 12})[1]
    status, out, complaints = said_by(["analyse", "classes", parent, pruned])
    assert status == 0, complaints
    found = rows(pruned / "analysis" / "classes.csv")
    assert sum(int(row["kept"]) for row in found) == 135
    differences = [float(row["difference"]) for row in found]
    assert differences == sorted(differences)
    assert "Spearman" in out
    assert is_png(pruned / "analysis" / "classes.png")
    other = train(tmp_path / "runs", {"data.val_fraction": 0.1, "train.steps": 2})[1]
    assert said_by(["analyse", "classes", parent, other])[0] == 0  # the same data, whatever is held out of it


MISTAKES = {  # a line, and what the answer must name
    "analyse nois": ["'analyse nois'", "'analyse noise'?"],
    "analyse": ["kdprune analyse WHAT", "analyse noise", "analyse classes"],
    "analyse noise --planted 1.5": ["--planted: 1.5", "(0, 1)"],
    "analyse noise --planted 0.1 --share 0": ["--share: 0", "(0, 1)"],
    "analyse noise --planted 0.1 --detectors el3n": ["--detectors", "'el3n'", "'el2n'?"],
    "analyse noise --planted 0.1 --scores x.parquet": ["--planted", "--scores"],
    "analyse noise --scores /no/such.parquet": ["/no/such.parquet"],
    "analyse noise --scores SCORES --share 2": ["--share: 2", "(0, 1)"],
    "analyse noise --planted 0.1 --record.files a": ["--record.files"],
    "analyse noise --train.lrr 1": ["--train.lr?"],
    "analyse ntk": ["run"],
    "analyse ntk /no/run --scores SCORES": ["/no/run"],
    "analyse ntk PARENT --scores SCORES --at 2 7": ["'7'", "kept: 1, 2, 3, step5"],
    "analyse ntk PARENT --scores SCORES --at 2": ["two snapshots", "1, 2, 3, step5"],
    "analyse ntk PARENT --scores SCORES --size 2000": ["--size: 2000", "1,347"],
    "analyse ntk PARENT --scores SCORES --size 1340 --windows 0": ["--windows: 0"],
    "analyse barrier PARENT --scores SCORES --spawn 9": ["'9'", "kept: 1, 2, 3, step5"],
    "analyse barrier PARENT --scores SCORES --spawn 3": ["--spawn: 3"],
    "analyse barrier PARENT --scores SCORES --points 2": ["--points: 2", "3 and more"],
    "analyse barrier PARENT --scores SCORES --parts 0": ["--parts: 0"],
    "analyse classes PARENT /no/run": ["/no/run"],
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_before_any_training(line, parent, scores, tmp_path):
    words = [{"PARENT": parent, "SCORES": scores}.get(word, word) for word in line.split()]
    if "noise" in line:
        words += ["--output", tmp_path]
    status, _, complaints = said_by(words)
    assert status == 2, complaints
    for name in MISTAKES[line]:
        assert name in plain(complaints)
    assert "epoch 1/" not in complaints


def test_scores_of_other_data_are_refused(parent, tmp_path):
    Scores(np.arange(9.0), np.zeros(9, int), "f" * 64, "made_up", "high").save(tmp_path / "other.parquet")
    for what in ("ntk", "barrier"):
        status, _, complaints = said_by(["analyse", what, parent, "--scores", tmp_path / "other.parquet"])
        assert status == 2
        assert "another data set" in complaints


def test_help_names_all_analyses(capsys):
    with pytest.raises(SystemExit):
        commands.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"analyse {what}" in said for what in ("noise", "ntk", "barrier", "classes"))
