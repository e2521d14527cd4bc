"""2:4: exactly two of every four weights along the input dimension, by whatever scores."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import plain, said_by, train
from hypothesis import given
from hypothesis import strategies as st

from kdprune.models.build import build_student
from kdprune.models.mask_file import load_mask
from kdprune.models.prunable import prunable
from kdprune.pruners.common.network import Network
from kdprune.pruners.common.pattern import grouped, keep_of_groups, kept_of_group, unfit, ungrouped
from kdprune.pruners.common.prune import prune
from kdprune.pruners.common.pruner import bound

SHORT = {"train.steps": 3, "train.eval_every": 100, "student.pattern": "2:4"}


def literal(score: torch.Tensor, count: int) -> torch.Tensor:
    """Group by group, an index at a time."""
    kept = torch.zeros(score.shape, dtype=torch.bool)
    flat_OIK, kept_OIK = score.reshape(*score.shape[:2], -1), kept.view(*score.shape[:2], -1)
    for out in range(score.shape[0]):
        for place in range(flat_OIK.shape[2]):
            for start in range(0, score.shape[1], 4):
                values = [(flat_OIK[out, start + i, place].item(), i) for i in range(4)]
                for _, i in sorted(values, reverse=True)[:count]:
                    kept_OIK[out, start + i, place] = True
    return kept


@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from([(), (3,), (1, 1), (3, 2)]), st.integers(0, 4),
       st.integers(0, 99))  # fmt: skip
def test_the_highest_of_each_group_are_kept(out, groups, kernel, count, seed):
    shape = (out, 4 * groups, *kernel)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    kept = keep_of_groups({"w": score}, count, seed, {"w": torch.ones(shape, dtype=torch.bool)})["w"]
    assert torch.equal(kept, literal(score, count))
    assert torch.equal(ungrouped(grouped(score), score.shape), score)


def test_ties_are_broken_by_the_seed_and_dead_weights_stay_dead():
    flat, alive = torch.zeros(64, 64), {"w": torch.ones(64, 64, dtype=torch.bool)}
    one, other = (keep_of_groups({"w": flat}, 2, seed, alive)["w"] for seed in (0, 1))
    assert not torch.equal(one, other)
    places = grouped(one).double().mean(0)
    assert ((places > 0.4) & (places < 0.6)).all()
    left = keep_of_groups({"w": torch.rand(64, 64)}, 2, 0, {"w": one})["w"]
    assert torch.equal(left, one)
    lowest = keep_of_groups({"w": torch.where(one, -torch.inf, 0.0)}, 2, 0, {"w": one})["w"]
    assert torch.equal(lowest, one)


def test_on_the_way_groups_lose_one_weight_after_the_other():
    assert [kept_of_group(s) for s in (0, 0.1, 0.25, 0.26, 0.49, 0.5, 0.9)] == [4, 4, 3, 3, 3, 2, 2]


@pytest.mark.parametrize("name", ["magnitude", "random", "synflow(rounds=7)"])
@pytest.mark.parametrize("inverted", [False, True])
def test_every_pruner_makes_exact_groups(name, inverted):
    torch.manual_seed(0)
    built = build_student("cifar_resnet8", 10, channels=3, image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    names = prunable(built.model, ["unfit"])
    assert names.excluded == tuple(unfit(dict(built.model.named_parameters()))[:1])
    network = Network(built.model, names.names, (3, 8, 8), seed=1)
    weights = {name: weight.clone() for name, weight in network.weights.items()}  # pruning sets some to zero
    kept = prune(network, bound(name), 0.5, scope="2:4", inverted=inverted, seed=1)
    assert all((grouped(one).sum(1) == 2).all() for one in kept.values())
    if name == "magnitude":
        sign = -1 if inverted else 1
        assert all(torch.equal(kept[one], literal(sign * weights[one].abs(), 2)) for one in kept)


@pytest.mark.parametrize("at", ["init", "2", "end", "gradual(1, 3, every=1)"])
def test_a_student_is_trained_under_the_pattern(tmp_path, at):
    summary, run = train(tmp_path, {**SHORT, "student.prune_at": at})
    mask = load_mask(run)
    assert mask.density == summary["weight_pruning"]["density"] == 0.5
    assert all((grouped(kept).sum(1) == 2).all() for kept in mask.kept.values())
    assert json.loads((run / "mask.json").read_text())["made"]["pattern"] == "2:4"
    assert "sp0.5-2of4-magnitude" in run.name


def test_a_pattern_that_is_handed_over_is_inverted_and_is_none_when_it_is_shuffled(tmp_path):
    _, run = train(tmp_path, SHORT)
    handed = {**SHORT, "student.pattern": None, "student.mask": str(run)}
    found = {}
    for check in ("invert", "shuffle"):
        found[check] = load_mask(train(tmp_path, {**handed, "student.mask_check": check})[1])
    assert all((grouped(kept).sum(1) == 2).all() for kept in found["invert"].kept.values())
    assert [mask.made.get("pattern") for mask in found.values()] == ["2:4", None]


def test_layers_that_hold_no_pattern_are_refused_by_name_or_left_whole(tmp_path):
    convolutional = {**SHORT, "student.model": "cifar_resnet8"}
    with pytest.raises(ValueError, match=r"--student\.pattern: 2:4 .*conv1\.weight.*--student\.prune_exclude unfit"):
        train(tmp_path, convolutional)
    assert not list(tmp_path.glob("*/config.yaml"))
    _, run = train(tmp_path, {**convolutional, "student.prune_exclude": ["unfit"]})
    assert list(load_mask(run).excluded) == ["conv1.weight"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student.sparsity": 0.7}, r"--student\.sparsity: 0\.7 given, and --student\.pattern 2:4"),
        ({"student.mask_check": "shuffle"}, "--student.pruner random"),
        ({"student.pattern": "1:4"}, "2:4"),
    ],
)
def test_what_does_not_go_with_a_pattern(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path, {**SHORT, **settings})
    assert not list(tmp_path.glob("*/config.yaml"))


def test_the_option_as_it_is_typed(tmp_path):
    words = ["train", "--data.dataset", "digits", "--student.model", "mlp_64", "--train.steps", 2, "--output", tmp_path]
    status, _, complaints = said_by([*words, "--student.pattern", "2:4"])
    assert status == 0, complaints
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('student: {pattern: "2:4"}\n')
    assert said_by([*words, "--config", recipe])[0] == 0
    assert len(list(tmp_path.glob("*/mask.json"))) == 1
    status, _, complaints = said_by(["lottery", *words[1:], "--student.pattern", "2:4"])
    assert status == 2
    assert "--student.pattern: 2:4" in plain(complaints)
