"""Ready sweeps: what each says it would do."""

from __future__ import annotations

import re

import pytest
from helpers import REPO, plain, said_by

from kdprune.sweep.estimate import Estimator, Measured

RECIPES = sorted(REPO.glob("configs/sweep_*.yaml"))
QUESTIONS = (
    "teacher_sizes",
    "scorers",
    "alpha",
    "teacher_epochs",
    "teacher_fraction",
    "ensembles",
    "temperature",
    "pruners",
)


def test_each_question_has_a_size_for_digits_and_one_for_a_gpu():
    expected = {f"sweep_{name}{size}" for name in QUESTIONS for size in ("", "_cifar10")}
    assert {recipe.stem for recipe in RECIPES} == expected


QUICK = "sweep_ensembles"  # enough for every day
CASES = [pytest.param(path, id=path.stem, marks=() if path.stem == QUICK else pytest.mark.slow) for path in RECIPES]


@pytest.mark.parametrize("recipe", CASES)
def test_a_dry_run_of_a_recipe_prints_what_its_head_says(recipe, monkeypatch, tmp_path):
    """Of how long steps take nothing is asked here, nor of data that has to be fetched."""
    monkeypatch.setattr(Estimator, "_steps", lambda self, config: Measured(1e-3, 0.0, 1000, 0.0))
    monkeypatch.chdir(tmp_path)
    status, out, text = said_by(["sweep", "--config", recipe, "--data.dataset", "digits", "--dry_run"])
    assert status == 0, text
    head = plain(" ".join(line[1:] for line in recipe.read_text().splitlines() if line.startswith("#")))
    for number in re.findall(r"(\d+) runs", head):
        assert f"{number} runs" in plain(out)
    for number in re.findall(r"(\d+) that choose", head):
        assert f"{number} that choose" in plain(out)
    assert "sample passes" in plain(out)
    assert not list(tmp_path.iterdir())
    if recipe.stem.removesuffix("_cifar10") not in ("sweep_teacher_sizes", "sweep_scorers"):
        assert "compared at one learning rate" not in plain(text)


def test_one_training_of_a_teacher_serves_all_of_its_epochs(monkeypatch):
    monkeypatch.setattr(Estimator, "_steps", lambda self, config: Measured(1e-3, 0.0, 1000, 0.0))
    _, out, _ = said_by(["sweep", "--config", REPO / "configs/sweep_teacher_epochs.yaml", "--dry_run"])
    assert len(set(re.findall(r"teacher cifar_resnet20, seed 0: about [\d:]+, [^,]*, for (\d+) runs", plain(out)))) == 1
