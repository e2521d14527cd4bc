"""Lottery tickets: rewinding goes on exactly where it says, masks shrink to exact counts, nothing is trained twice."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import FRESH, config_of, kdprune, restored_surroundings, said_by, train

from kdprune.models.mask_file import load_mask
from kdprune.pipeline.lottery import Plan, lottery

PLAN = Plan(levels=2, rate=0.5, rewind_to=8)
# Without momentum, and with dropout, a training is its weights and its step.
MEMORYLESS = {"train.momentum": 0.0, "student.drop_rate": 0.2, "train.warmup_epochs": 0.3, "train.eval_every": 100}
WORDS = ["lottery", "--data.dataset", "digits", "--student.model", "mlp_64", "--train.precision", "no"]
LEVELS = ["--train.steps", 200, "--levels", 3, "--rate", 0.3, "--rewind_to", 10, "--train.checkpoint_every", "1"]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(file)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def levels(output: Path, options=None, plan: Plan = PLAN):
    with restored_surroundings():
        return list(lottery(config_of(output, options), plan))


@pytest.fixture(scope="module")
def ticket(tmp_path_factory):
    return levels(tmp_path_factory.mktemp("ticket"))


@pytest.mark.parametrize("step", [8, 21, 5])
def test_a_rewound_training_goes_on_at_its_step(tmp_path, step):
    """Schedule, order, views and dropout: from the weights of step k it comes to that training's end."""
    summary, dense = train(tmp_path, {**MEMORYLESS, "train.save_steps": [step]})
    kept = dense / f"checkpoints/step_{step:09}.safetensors"
    rewound = {**MEMORYLESS, "student.checkpoint": str(kept), "student.rewind_to": step}
    again, run = train(tmp_path, rewound)
    assert equal(weights(run / "student.safetensors"), weights(dense / "student.safetensors"))
    assert again["steps"] == summary["steps"] - step
    assert again["images_seen"] == (22 - step) * 64 == again["cost"]["student_training"]["backward_samples"]
    _, other = train(tmp_path, {**rewound, "student.rewind_to": 0})
    assert other != run
    assert not equal(weights(other / "student.safetensors"), weights(dense / "student.safetensors"))


def test_each_level_prunes_the_smallest_weights_that_are_left(ticket):
    dense, *pruned = ticket
    assert [level.number for level in ticket] == [0, 1, 2]
    before, alive = weights(dense.result.path / "student.safetensors"), None
    for level in pruned:
        mask = load_mask(level.result.path)
        total = sum(kept.numel() for kept in mask.kept.values())
        assert mask.count == total - round(total * (1 - 0.5**level.number))
        assert level.density == mask.density
        kept = torch.cat([kept.flatten() for kept in mask.kept.values()])
        magnitude = torch.cat([before[name].abs().flatten() for name in mask.kept])
        alive = torch.ones_like(kept) if alive is None else alive
        assert not (kept & ~alive).any()
        assert magnitude[kept].min() >= magnitude[alive & ~kept].max()
        before, alive = weights(level.result.path / "student.safetensors"), kept
        assert all((before[name][~one] == 0).all() for name, one in mask.kept.items())


def test_each_level_begins_with_the_weights_of_the_step(tmp_path, ticket):
    """A training that ends one step later, at a rate that moves nothing, shows where it began."""
    kept = ticket[0].result.path / "checkpoints/step_000000008.safetensors"
    still = {"train.lr": 1e-30, "train.steps": 9, "train.weight_decay": 0.0}
    mask = ticket[1].result.path
    _, run = train(
        tmp_path, {**still, "student.mask": str(mask), "student.checkpoint": str(kept), "student.rewind_to": 8}
    )
    found, first, masked = weights(run / "student.safetensors"), weights(kept), load_mask(mask).kept
    assert all(torch.equal(found[name], first[name] * masked.get(name, True)) for name in first)


def test_levels_are_found_and_longer_lotteries_go_on(ticket, caplog):
    output = ticket[0].result.path.parent
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/student.safetensors")}
    assert [level.result for level in levels(output)] == [level.result for level in ticket]
    more = levels(output, plan=Plan(levels=3, rate=0.5, rewind_to=8))
    assert [level.result for level in more[:3]] == [level.result for level in ticket]
    after = {path: path.stat().st_mtime_ns for path in output.glob("*/student.safetensors")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1


def test_without_a_step_the_first_weights_are_kept(tmp_path):
    dense, level = levels(tmp_path, plan=Plan(levels=1, rate=0.2))
    assert not list((dense.result.path / "checkpoints").glob("*.safetensors"))
    assert level.result.summary["steps"] == dense.result.summary["steps"]
    assert "rewound_to" not in level.result.summary["key"]


def test_a_lottery_with_a_teacher_on_a_subset(tmp_path):
    found = levels(
        tmp_path,
        {"subset.keep_fraction": 0.5, "teacher.models": ["mlp_64"], "teacher.train.steps": 5, "name": "won",
         "student.prune_scope": "layer", "student.prune_exclude": ["last"]},
        Plan(levels=1, rate=0.25, rewind_to=4, repeats=2),
    )  # fmt: skip
    names = [f"won-s{seed}-level{level}" for seed in (0, 1) for level in (0, 1)]
    assert [level.result.path.name for level in found] == names
    for level in found[1::2]:
        mask = load_mask(level.result.path)
        assert "fc.weight" in mask.excluded
        assert set(mask.densities.values()) == {0.75}
        assert level.result.summary["teacher"]


@pytest.mark.parametrize(
    ("options", "plan", "words"),
    [
        ({}, {"levels": 0}, ["--levels: 0", "1 or more"]),
        ({}, {"rate": 1.0}, ["--rate: 1.0", "below 1"]),
        ({}, {"rewind_to": -1}, ["--rewind_to: -1"]),
        ({}, {"rewind_to": 22}, ["--rewind_to", "22", "0 to 21"]),
        ({"student.sparsity": 0.5}, {}, ["--student.sparsity: 0.5", "say themselves"]),
        ({"student.rewind_to": 3}, {}, ["--student.rewind_to: 3"]),
        ({"baseline": True}, {}, ["--baseline"]),
        ({"train.record": "training"}, {"rewind_to": 3}, ["--train.record training", "allowed is none"]),
        ({"subset.dynamic": "infobatch"}, {"rewind_to": 3}, ["infobatch", "losses"]),
    ],
)
def test_what_cannot_be_is_refused_before_any_training(tmp_path, options, plan, words):
    with pytest.raises(ValueError, match="--") as error:
        levels(tmp_path, options, Plan(**plan))
    assert all(word in str(error.value) for word in words), error.value
    assert not list(tmp_path.glob("*/config.yaml"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"student.rewind_to": 5}, ["--student.rewind_to: 5", "--student.checkpoint"]),
        ({"student.rewind_to": 22, "student.checkpoint": "kept"}, ["22 steps", "0 to 21"]),
        ({"student.rewind_to": 5, "student.checkpoint": "kept", "train.save_steps": [5]}, ["save_steps", "6 to 22"]),
        ({"student.rewind_to": 5, "student.checkpoint": "kept", "student.sparsity": 0.5, "student.prune_at": "7"},
         ["--student.prune_at 7", "init, end"]),
    ],
)  # fmt: skip
def test_a_rewinding_that_cannot_be_is_refused(tmp_path, ticket, options, words):
    kept = str(ticket[0].result.path / "checkpoints/step_000000008.safetensors")
    with pytest.raises(ValueError, match="--") as error:
        train(tmp_path, {name: kept if value == "kept" else value for name, value in options.items()})
    assert all(word in str(error.value) for word in words), error.value


def test_the_command_prints_a_row_a_level(tmp_path):
    words = [*WORDS, "--train.steps", 12, "--output", tmp_path, "--levels", 2, "--rate", 0.2, "--repeats", 2]
    status, printed, complaints = said_by(words)
    assert status == 0, complaints
    assert [text in printed for text in ("80", "64", "±", "2 seeds")] == [True] * 4
    rows = [json.loads(line) for line in said_by([*words, "--json"])[1].splitlines()]
    assert [(row["seed"], row["level"]) for row in rows] == [(seed, level) for seed in (0, 1) for level in (0, 1, 2)]
    assert rows[2]["density"] == pytest.approx(0.64, abs=1e-4)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bits(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert said_by([*WORDS, *LEVELS, "--output", straight])[0] == 0
    draw, log, words = random.Random(0), tmp_path / "log", [*WORDS, *LEVELS, "--output", killed]
    for level in (0, 1, 2, 3):
        process = FRESH.Process(target=kdprune, args=(words, log))
        process.start()
        while process.is_alive() and len(list(killed.glob("*/student.safetensors"))) < level:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert said_by(words)[0] == 0
    files = sorted(path.relative_to(straight) for path in straight.glob("**/*.safetensors"))
    assert len(files) == 4 + 1 + 3 + 3  # students, the step, masks as they were made and in their runs
    for file in files:
        assert (straight / file).read_bytes() == (killed / file).read_bytes(), file
