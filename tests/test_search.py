"""α by successive halving: on kept samples only, from one cache, repeatable and resumable."""

import inspect
import json

import numpy as np
import pytest
from helpers import config_of, train, unfinish

from kdprune.alpha import MEASURED, Search, parse, search
from kdprune.checks import check
from kdprune.data import views
from kdprune.data.sources import open_source
from kdprune.data.stream import total_steps
from kdprune.data.subset import Subset
from kdprune.pipeline.given import Given
from kdprune.pipeline.search import HELD_OUT, halvings, shortened, split
from kdprune.pipeline.train import run as run_pipeline


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search", Search()),
        ("search([0.5, 1])", Search((0.5, 1.0))),
        ("search([0.5], [2, 4])", Search((0.5,), (2.0, 4.0))),
        ("linear(1.0, 0.5)", None),
        (0.9, None),
    ],
)
def test_what_asks_for_a_search(text, expected):
    assert search(text) == expected


@pytest.mark.parametrize("text", ["search([])", "search([1.2])", "search([0.5], [0])", "search(0.5)", "search([a])"])
def test_wrong_candidates_are_refused(text):
    with pytest.raises(ValueError, match=r"^--distill\.alpha: "):
        search(text)


@pytest.mark.parametrize(
    ("count", "plan"),
    [
        (1, []),
        (2, [(2, 0.5)]),
        (3, [(3, 0.25), (2, 0.5)]),
        (4, [(4, 0.25), (2, 0.5)]),
        (5, [(5, 0.125), (3, 0.25), (2, 0.5)]),
        (8, [(8, 0.125), (4, 0.25), (2, 0.5)]),
    ],
)
def test_half_go_on_with_twice_the_epochs_and_two_end_at_half_the_run(count, plan):
    assert halvings(count) == plan


def test_auto_is_the_table_of_what_was_measured():
    for keep_fraction, alpha in MEASURED:
        assert parse("auto").at(keep_fraction) == alpha
    assert parse("auto").at(1.0) == MEASURED[-1][1]


def test_the_held_out_fifth_is_kept_samples_and_apart_from_the_rest():
    subset = Subset(np.arange(0, 300, 3), 300, "f" * 64)
    part, held_out = split(subset, seed=1)
    assert len(held_out) == HELD_OUT * 100
    assert np.array_equal(np.sort(np.concatenate([part.ids, held_out])), subset.ids)
    assert not np.array_equal(held_out, split(subset, seed=2)[1])


@pytest.fixture(scope="module")
def settings(digits_teacher):
    return {
        "teacher.models": str(digits_teacher), "subset.keep_fraction": 0.5, "train.steps": None, "train.epochs": 4,
        "distill.alpha": "search([0.0, 0.5, 1.0])", "teacher.targets": "cached",
    }  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory, settings):
    return train(tmp_path_factory.mktemp("search"), settings)


def test_the_run_takes_what_the_search_found(searched):
    summary, run = searched
    found = json.loads((run / "search" / "search.json").read_text())
    assert summary["alpha"] == found["alpha"]
    assert [len(rung["candidates"]) for rung in found["rungs"]] == [3, 2]
    assert [round(rung["epochs"]) for rung in found["rungs"]] == [1, 2]  # a quarter, then half of the run's four
    last = found["rungs"][-1]["candidates"]
    assert found["alpha"] == max(last, key=lambda c: (c["top1"], -c["loss"]))["alpha"]
    assert summary["cost"]["alpha_search"] == found["cost"]
    assert found["held_out"] == round(HELD_OUT * summary["kept"])


def test_one_cache_serves_all_candidates(searched):
    """Three candidates train for an epoch, two of them for two: the teacher is asked no more often than for one.

    And the run after them asks it only for what they have not met, entry by entry.
    """
    summary, run = searched
    cost = json.loads((run / "search" / "search.json").read_text())["cost"]
    assert 0 < cost["teacher_forward_samples"] < cost["forward_samples"] / 3
    assert len(list((run.parent / "targets").iterdir())) == 1
    asked = cost["teacher_forward_samples"] + summary["cost"]["target_caching"]["forward_samples"]
    assert asked == summary["images_seen"]


def rungs(run):
    return json.loads((run / "search" / "search.json").read_text())["rungs"]


def test_the_search_finds_the_same_without_a_held_out_split(tmp_path, settings, searched):
    config = config_of(tmp_path, settings)
    (result,) = run_pipeline(config, Given((open_source("digits", "train"), None)))
    assert result.summary["test_top1"] is None
    assert rungs(result.path) == rungs(searched[1])


def test_it_is_repeatable_and_a_finished_candidate_is_not_trained_again(tmp_path, settings, searched):
    summary, run = searched
    again, other = train(tmp_path, settings)
    assert rungs(run) == rungs(other)
    assert again["test_loss"] == summary["test_loss"]
    for path in (other, other / "search"):
        unfinish(path)
    kept = {path: path.stat().st_mtime_ns for path in other.glob("search/*/summary.json")}
    train(tmp_path, settings)
    assert len(kept) == 5
    assert kept == {path: path.stat().st_mtime_ns for path in other.glob("search/*/summary.json")}


def test_mixing_partners_do_not_come_from_the_held_out_fifth(tmp_path, settings, monkeypatch):
    pools, original = set(), views.mixing

    def watched(*args, **how):
        pools.add(tuple(inspect.signature(original).bind(*args, **how).arguments["kept_K"].tolist()))
        return original(*args, **how)

    monkeypatch.setattr(views, "mixing", watched)
    mixed = {
        "data.augment": "crop(1)+mixup(0.4)", "train.epochs": 2, "teacher.targets": "online",
        "distill.alpha": "search([0.0, 1.0])",
    }  # fmt: skip
    summary, run = train(tmp_path, {**settings, **mixed})
    kept = json.loads((run / "subset.json").read_text())["ids"]
    part, held_out = split(Subset(np.array(kept), summary["total"], "f" * 64), seed=summary["seed"])
    assert pools == {tuple(kept), tuple(part.ids.tolist())}
    assert not set(part.ids) & set(held_out)
    assert not (run.parent / "targets").exists()


def test_a_temperature_that_was_found_is_the_runs(tmp_path, settings):
    summary, run = train(
        tmp_path, {**settings, "distill.alpha": "search([1.0], [0.5, 8.0])", "distill.temperature": 3.0}
    )
    found = json.loads((run / "search" / "search.json").read_text())
    (rung,) = found["rungs"]
    assert {candidate["temperature"] for candidate in rung["candidates"]} == {0.5, 8.0}
    assert len({candidate["loss"] for candidate in rung["candidates"]}) == 2
    assert summary["temperature"] == found["temperature"] == rung["candidates"][0]["temperature"]


@pytest.mark.parametrize(
    "length", [{"train.epochs": 8}, {"train.steps": 84, "train.epochs": 8}, {"train.epochs": 8, "train.budget": "full"}]
)
def test_a_candidates_schedule_is_the_runs_made_shorter(tmp_path, length):
    """Warm-up and milestones come after the same part of the steps, and all of it costs what is announced."""
    config = config_of(tmp_path, {
        "train.steps": None, "train.warmup_epochs": 1.0, "train.decay_milestones": [4.0, 6.0],
        "train.sched": "multistep", "subset.keep_fraction": 0.5, **length,
    })  # fmt: skip
    kept, total = 670, 1340

    def places(train, ids):
        steps = total_steps(train.epochs, train.steps, train.budget, ids, total, train.batch_size)
        epoch = steps / train.epochs if train.steps is None else ids / train.batch_size
        return steps, [e * epoch / steps for e in (train.warmup_epochs, *train.decay_milestones)]

    steps, marks = places(config.train, kept)
    for fraction in (0.25, 0.5):
        short, own = places(shortened(config, fraction).train, round(kept * (1 - HELD_OUT)))
        assert short == pytest.approx(steps * fraction * (1 - HELD_OUT), abs=1)
        assert own == pytest.approx(marks, rel=0.05)


def test_a_search_with_the_mean_teacher_is_refused(tmp_path):
    config = config_of(tmp_path, {"teacher.models": "ema", "train.ema": 0.9, "distill.alpha": "search"})
    with pytest.raises(ValueError, match="needs teachers that stay as they are"):
        check(config)
