"""A choice by features is made once, and anew when anything that it depends on is another."""

from __future__ import annotations

import pytest
from helpers import train

from kdprune.pipeline import samples

BY_FEATURES = {"subset.selector": "d2", "subset.scorer": "el2n", "subset.keep_fraction": 0.1, "train.steps": 6,
               "record.source": "proxy", "record.train": {"epochs": 1.0, "lr": 0.05}}  # fmt: skip


@pytest.fixture
def choices(monkeypatch):
    """Every choice that is made."""
    made = []

    def select(*arguments, **options):
        made.append(options["selector"])
        return original(*arguments, **options)

    original = samples.select
    monkeypatch.setattr(samples, "select", select)
    return made


def test_a_choice_by_features_is_found_again(tmp_path, choices):
    summary, _ = train(tmp_path, BY_FEATURES)
    assert choices.count("d2") == 1
    (kept,) = (tmp_path / "subsets").iterdir()
    other, _ = train(tmp_path, {**BY_FEATURES, "train.lr": 0.01})
    assert other["subset_hash"] == summary["subset_hash"]
    assert choices.count("d2") == 1
    changes = {"subset.keep_fraction": 0.2}, {"subset.scorer": "entropy"}, {"subset.selector": "d2(gamma=0.5)"}
    for number, change in enumerate(
        (*changes, {"subset.balanced": True}, {"record.train": {"epochs": 2.0, "lr": 0.05}}), 2
    ):
        train(tmp_path, {**BY_FEATURES, **change})
        assert sum(name.startswith("d2") for name in choices) == number == len(list((tmp_path / "subsets").iterdir()))
    (kept / "subset.json").write_text((kept / "subset.json").read_text().replace("2", "3"))
    with pytest.raises(ValueError, match=f"remove {kept}"):
        train(tmp_path, {**BY_FEATURES, "train.lr": 0.02})


def test_a_choice_by_chance_leaves_nothing_behind(tmp_path):
    train(tmp_path, {"subset.keep_fraction": 0.5, "train.steps": 2})
    assert not (tmp_path / "subsets").exists()
