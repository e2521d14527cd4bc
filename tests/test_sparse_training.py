"""Whole trainings of sparse students in this process: masks that are made, handed over, found, refused."""

from __future__ import annotations

import json
import logging

import pytest
import safetensors.torch
import timm
import torch
from helpers import StopIn, train

from kdprune.config.identity import config_hash
from kdprune.data.sources import open_source
from kdprune.models.mask_file import load_mask, save_mask
from kdprune.runs.reading import read_config
from kdprune.teachers.frozen import can_compile
from kdprune.training.interrupt import Interrupted

SHORT = {"train.steps": 6, "train.eval_every": 100}
SNIP = {**SHORT, "student.sparsity": 0.9, "student.pruner": "snip(per_class=3)"}
ROUGH = {"train.ema": 0.9, "train.clip_grad": 0.5, "train.grad_accum": 2, "train.weight_decay": 0.1}
NAMES = ["fc1.weight", "fc2.weight", "fc.weight"]


def weights(run) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "student.safetensors")


def zeros_are(run, mask) -> bool:
    """Whether the exported student has +0 exactly where the mask prunes."""
    found = {name: value.view(torch.int32) == 0 for name, value in weights(run).items() if name in mask.kept}
    return list(found) and all(torch.equal(found[name], ~kept) for name, kept in mask.kept.items())


@pytest.fixture(scope="module")
def snip_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("snip"), SNIP)


def test_a_sparse_student_is_exported_with_its_zeros(snip_run):
    summary, run = snip_run
    mask = load_mask(run)
    assert list(mask.kept) == NAMES
    assert zeros_are(run, mask)
    total = 64 * 64 + 64 * 64 + 640
    assert mask.count == total - round(0.9 * total)
    timm.create_model("mlp_64", num_classes=10, in_chans=1, img_size=8).load_state_dict(weights(run), strict=True)
    assert "sp0.9-snip" in run.name
    said = summary["weight_pruning"]
    assert said["density"] == mask.density
    assert said["layers"] == mask.densities
    assert said["pruner"] == "snip(per_class=3, rounds=1)"
    assert said["multiply_adds"] == {"dense": total, "sparse": mask.count}
    assert said["bytes"]["compressed"] < said["bytes"]["plain"] == (run / "student.safetensors").stat().st_size
    biases = 64 + 64 + 10
    assert said["density_of_all_parameters"] == pytest.approx((mask.count + biases) / (total + biases))
    assert {"mask.json", "mask.safetensors"} <= json.loads((run / "artefact.json").read_text())["files"].keys()


def test_it_is_found_again_and_its_mask_is_made_once(snip_run, caplog):
    summary, run = snip_run
    (made,) = (run.parent / "masks").iterdir()
    before = (made / "mask.safetensors").stat().st_mtime_ns
    again, same = train(run.parent, SNIP)
    assert (again, same) == (summary, run)
    train(run.parent, {**SNIP, "train.lr": 0.01, "train.batch_size": 32})  # another run of the same mask
    assert (made / "mask.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in (run.parent / "masks").iterdir()] == [made.name]
    assert load_mask(made).hash == load_mask(run).hash


def test_a_mask_is_handed_over(snip_run, tmp_path):
    _, run = snip_run
    for given in (run, run / "mask.json"):
        summary, other = train(tmp_path, {**SHORT, "student.mask": str(given), "seeds.weights": 5})
        assert zeros_are(other, load_mask(run))
        assert summary["weight_pruning"]["mask_hash"] == load_mask(run).hash
    assert summary["key"]["weight_pruning"] == {"mask": load_mask(run).hash, "check": None}
    assert "mask" in other.name


def test_a_dense_run_knows_nothing_of_it(tmp_path):
    summary, run = train(tmp_path, {**SHORT, "student.sparsity": 0.0})
    assert "weight_pruning" not in summary
    assert "weight_pruning" not in summary["key"]
    assert not (run / "mask.json").exists()
    assert not (tmp_path / "masks").exists()
    assert "-sp" not in run.name
    assert config_hash(read_config(run)) == summary["config_hash"]


def test_a_sparse_student_is_distilled_on_pruned_data_in_one_run(tmp_path):
    """In bf16, and the teacher that is trained first has all of its weights."""
    settings = {
        **SNIP, "subset.keep_fraction": 0.5, "teacher.models": "mlp_64", "train.precision": "bf16",
        "distill.alpha": 0.9, "baseline": True,
    }  # fmt: skip
    summary, run = train(tmp_path, settings)
    assert zeros_are(run, load_mask(run))
    assert summary["alpha"] == 0.9
    (teacher,) = (tmp_path / "teachers").iterdir()
    assert not (teacher / "mask.json").exists()
    (baseline,) = tmp_path.glob("*-plain-*")
    assert load_mask(baseline).hash == load_mask(run).hash


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="there is no C++ compiler")
def test_zeros_stay_in_a_compiled_student(tmp_path):
    _, run = train(tmp_path, {**SNIP, **ROUGH, "train.compile": True, "student.prune_at": "3"})
    assert zeros_are(run, load_mask(run))


def test_a_pruner_that_needs_labels_is_refused_where_there_are_none(snip_run, tmp_path):
    source = open_source("digits", "train")
    for i in range(90):
        kind = tmp_path / "images" / ("train" if i < 40 else f"test/{source.labels[i]}")
        kind.mkdir(parents=True, exist_ok=True)
        source[i].save(kind / f"{i}.png")
    settings = {**SNIP, "data.dataset": str(tmp_path / "images"), "teacher.models": str(snip_run[1]),
                "distill.alpha": 1, "train.batch_size": 32}  # fmt: skip
    with pytest.raises(ValueError, match=r"--student\.pruner: snip\(.*needs labels, and .* has none"):
        train(tmp_path, settings)
    _, run = train(tmp_path, {**settings, "student.pruner": "synflow(rounds=3)"})
    assert zeros_are(run, load_mask(run))


@pytest.mark.parametrize("at", ["init", "3", "end", "gradual(1, 5, every=2)"])
def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path, at):
    settings = {**SHORT, **ROUGH, "student.sparsity": 0.8, "student.prune_at": at}
    _, whole = train(tmp_path / "whole", settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", settings, StopIn(4))
    _, stopped = train(tmp_path / "stopped", settings)
    assert (stopped / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert (stopped / "mask.safetensors").read_bytes() == (whole / "mask.safetensors").read_bytes()
    mask = load_mask(whole)
    assert mask.count == mask.total - round(0.8 * mask.total)
    assert zeros_are(whole, mask)


def test_pruning_after_training_is_of_the_trained_weights(tmp_path):
    """The largest of what the same training without pruning ends with."""
    _, dense = train(tmp_path, SHORT)
    _, run = train(tmp_path, {**SHORT, "student.sparsity": 0.5, "student.prune_at": "end"})
    before, after, mask = weights(dense), weights(run), load_mask(run)
    for name, kept in mask.kept.items():
        assert torch.equal(after[name], before[name] * kept)
    inside = min(before[name][kept].abs().min() for name, kept in mask.kept.items())
    assert inside >= max(before[name][~kept].abs().max() for name, kept in mask.kept.items())


def test_rewinding_is_a_run_from_an_early_snapshot_under_the_mask(tmp_path):
    settings = {**SHORT, "student.sparsity": 0.5, "student.prune_at": "end", "train.save_steps": [2]}
    _, run = train(tmp_path, settings)
    early = run / "checkpoints" / "step_000000002.safetensors"
    rewound = {**SHORT, "student.mask": str(run), "student.checkpoint": str(early), "train.lr": 1e-30}
    _, other = train(tmp_path, rewound)
    start, mask = safetensors.torch.load_file(early), load_mask(run)
    seen = weights(other)  # at a learning rate that changes nothing
    for name, kept in mask.kept.items():
        assert torch.equal(seen[name], start[name] * kept)


@pytest.mark.parametrize("check", ["shuffle", "reinit", "invert"])
def test_sanity_checks_are_told_apart(snip_run, check):
    _, run = snip_run
    summary, other = train(run.parent, {**SNIP, "student.mask_check": check})
    mask, checked = load_mask(run), load_mask(other)
    assert check in other.name
    assert summary["weight_pruning"]["check"] == check
    assert checked.made["check"] == check
    assert zeros_are(other, checked)
    assert checked.count == mask.count
    if check == "reinit":
        assert checked.hash == mask.hash
        assert not torch.equal(weights(other)["fc1.weight"], weights(run)["fc1.weight"])
    else:
        assert checked.hash != mask.hash
    if check == "shuffle":
        assert checked.densities == mask.densities


def test_a_mask_that_is_handed_over_is_inverted_to_its_complement(snip_run, tmp_path):
    _, run = snip_run
    _, other = train(tmp_path, {**SHORT, "student.mask": str(run), "student.mask_check": "invert"})
    kept, opposite = load_mask(run).kept, load_mask(other).kept
    assert all((kept[name] ^ opposite[name]).all() for name in kept)


def test_layers_that_are_left_whole(tmp_path, caplog):
    caplog.set_level(logging.INFO, "kdprune")
    _, run = train(tmp_path, {**SHORT, "student.sparsity": 0.9, "student.prune_exclude": ["first", "last"]})
    mask = load_mask(run)
    assert list(mask.kept) == ["fc2.weight"]
    assert mask.excluded == {"fc1.weight": (64, 64), "fc.weight": (10, 64)}
    assert "left whole: fc1.weight, fc.weight" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student.sparsity": 1.0}, r"--student\.sparsity: 1\.0 given, allowed is \[0, 1\)"),
        ({"student.sparsity": 0.5, "student.pruner": "snpi"}, "did you mean 'snip'"),
        ({"student.sparsity": 0.5, "student.pruner": "snip(per_clas=1)"}, "did you mean 'per_class'"),
        ({"student.sparsity": 0.5, "student.prune_at": "7"}, r"--student\.prune_at: 7 given, and .* has 6 steps"),
        ({"student.sparsity": 0.5, "student.prune_at": "soon"}, r"--student\.prune_at: 'soon' given, allowed are init"),
        ({"student.sparsity": 0.5, "student.prune_exclude": ["lasst"]}, "did you mean 'last'"),
        ({"student.sparsity": 0.99999}, "leaves no weight at all"),
        ({"student.sparsity": 0.5, "student.prune_at": "end", "student.mask_check": "reinit"}, "which needs --student"),
        ({"student.sparsity": 0.5, "student.prune_at": "gradual(1, 5)", "student.mask_check": "shuffle"}, "many times"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_any_step(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path, {**SHORT, **settings})
    assert not list(tmp_path.glob("*/config.yaml"))


def test_layer_collapse_is_named_and_refused_unless_allowed(tmp_path):
    """The first weights of a smaller layer are larger, so that magnitude prunes the wide layers wholly."""
    settings = {**SHORT, "student.sparsity": 0.999, "student.model": "cifar_resnet8", "train.steps": 1}
    with pytest.raises(ValueError, match=r"leaves no weight in .*layer3.*--student\.allow_collapse true"):
        train(tmp_path, settings)
    assert not list(tmp_path.glob("*/config.yaml"))


def test_a_mask_of_another_model_is_refused(snip_run, tmp_path):
    _, run = snip_run
    with pytest.raises(ValueError, match=r"--student\.mask: .* is no mask of lenet_300_100: 'fc1.weight' is 64×64"):
        train(tmp_path, {**SHORT, "student.model": "lenet_300_100", "student.mask": str(run)})
    with pytest.raises(FileNotFoundError, match=r"--student\.mask"):
        train(tmp_path, {**SHORT, "student.mask": "nowhere"})
    mask = load_mask(run)
    mask.kept["fc1.weight"][:] = False
    save_mask(tmp_path, mask)
    with pytest.raises(ValueError, match=r"leaves no weight in fc1\.weight"):
        train(tmp_path, {**SHORT, "student.mask": str(tmp_path)})
    _, other = train(tmp_path, {**SHORT, "student.mask": str(tmp_path), "student.allow_collapse": True})
    assert not weights(other)["fc1.weight"].any()
