"""Masks: in files that anybody may have written, and on weights that are trained."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.utils import ModelEmaV3
from torch import nn

from kdprune.config import TrainConfig
from kdprune.models.mask import Mask, packed, unpacked
from kdprune.models.mask_file import BITS, JSON, load_mask, save_mask
from kdprune.models.multiply_adds import multiply_adds
from kdprune.models.prunable import prunable
from kdprune.pruners.common.sanity import inverted, shuffled
from kdprune.pruners.common.when import When, parse
from kdprune.training.optimizer import make_optimizer
from kdprune.training.sparse import Sparse


def kept_of(model: nn.Module, seed: int = 0, density: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    return {name: torch.rand(parameters[name].shape, generator=generator) < density for name in prunable(model).names}


@pytest.fixture
def mask() -> Mask:
    model = timm.create_model("cifar_resnet8", in_chans=1)
    return Mask(kept_of(model), {}, {"pruner": "random(rounds=1)"})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 9))
def test_bits_are_packed_and_come_back(shape, seed):
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    assert len(packed(kept)) == -(-kept.numel() // 8)
    assert torch.equal(unpacked(packed(kept), tuple(shape)), kept)


def test_a_mask_comes_back_from_its_files(tmp_path, mask):
    assert save_mask(tmp_path, mask) == [BITS, JSON]
    for path in (tmp_path, tmp_path / JSON):
        found = load_mask(path)
        assert found.hash == mask.hash
        assert found.made == mask.made
        assert list(found.kept) == list(mask.kept)
        assert all(torch.equal(found.kept[name], kept) for name, kept in mask.kept.items())
    content = json.loads((tmp_path / JSON).read_text())
    assert (content["kept"], content["total"]) == (mask.count, mask.total)
    assert (tmp_path / BITS).stat().st_size < mask.total / 8 + 2000


def change(path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: change(f / JSON, format="kdprune mask 9"), "another version"),
        (lambda f: change(f / JSON, format="x"), "is not a mask"),
        (lambda f: change(f / JSON, tensors=[]), "names no tensor"),
        (lambda f: change(f / JSON, tensors=[{"name": "a"}]), "'tensors' is"),
        (lambda f: change(f / JSON, tensors=[{"name": "a", "shape": [2**31] * 9}]), "only one of them has"),
        (lambda f: change(f / JSON, tensors=[{"name": "a", "shape": [1]}] * 2), "named twice"),
        (lambda f: change(f / JSON, excluded=[{"name": "fc.weight", "shape": [1]}]), "named twice"),
        (lambda f: change(f / JSON, hash="0"), "do not match the hash"),
        (lambda f: (f / BITS).write_bytes((f / BITS).read_bytes()[:-1]), "is damaged"),
        (lambda f: (f / BITS).unlink(), "is missing"),
        (lambda f: ((f / JSON).unlink(), os.mkfifo(f / JSON)), "is a pipe"),
        (lambda f: (f / JSON).write_text("[" * 1000), "not valid JSON"),
    ],
)
def test_a_mask_of_others_is_judged_before_it_is_believed(tmp_path, mask, damage, said):
    save_mask(tmp_path, mask)
    damage(tmp_path)
    with pytest.raises(ValueError, match=said):
        load_mask(tmp_path / JSON)


def with_bits(folder, change) -> None:
    bits = safetensors.torch.load_file(folder / BITS)
    change(bits)
    safetensors.torch.save_file(bits, folder / BITS)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda bits: bits["fc.weight"].bitwise_xor_(torch.tensor(64, dtype=torch.uint8)), "do not match the hash"),
        (lambda bits: bits.update(more=bits["fc.weight"].clone()), "only one of them has 'more'"),
        (lambda bits: bits.update({"fc.weight": bits["fc.weight"].float()}), r"float32 \(80,\), and should have uint8"),
        (lambda bits: bits.update({"fc.weight": bits["fc.weight"][1:].clone()}), r"\(79,\), and should have uint8"),
        (lambda bits: bits["conv1.weight"].bitwise_or_(torch.tensor(1, dtype=torch.uint8)), "do not match the hash"),
    ],
)
def test_bits_of_others(tmp_path, mask, damage, said):
    save_mask(tmp_path, mask)
    with_bits(tmp_path, damage)
    with pytest.raises(ValueError, match=said):
        load_mask(tmp_path)


def test_bits_behind_the_last_weight(tmp_path):
    save_mask(tmp_path, Mask({"w": torch.ones(3, dtype=torch.bool)}))
    with_bits(tmp_path, lambda bits: bits["w"].bitwise_or_(torch.tensor(1, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="bits behind its last weight"):
        load_mask(tmp_path)


def test_no_mask(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder without a mask"):
        load_mask(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such mask"):
        load_mask(tmp_path / "a.json")


def test_a_mask_of_another_model_is_refused_by_its_first_tensor(mask):
    mask.check_fits(timm.create_model("cifar_resnet8", in_chans=1), "a.json", "cifar_resnet8")
    for name, options, tensor in (
        ("cifar_resnet8", {}, "'conv1.weight' is 16×1×3×3 in the mask and 16×3×3×3 in the model"),
        ("cifar_resnet14", {"in_chans": 1}, "'layer1.1.conv1.weight' is absent in the mask"),
        ("cifar_resnet8", {"in_chans": 1, "num_classes": 7}, "'fc.weight' is 10×64 in the mask and 7×64 in the model"),
    ):
        with pytest.raises(ValueError, match=f"a.json is no mask of {name}: {tensor}"):
            mask.check_fits(timm.create_model(name, **options), "a.json", name)
    less = Mask(dict(list(mask.kept.items())[:-1]), {"fc.weight": (10, 64)})
    less.check_fits(timm.create_model("cifar_resnet8", in_chans=1), "a.json", "cifar_resnet8")


def test_sanity_checks(mask):
    other = shuffled(mask.kept, 0)
    for name, kept in mask.kept.items():
        assert int(other[name].sum()) == int(kept.sum())
        assert not torch.equal(other[name], kept)
    assert all((kept ^ mask.kept[name]).all() for name, kept in inverted(mask.kept).items())
    assert all(torch.equal(shuffled(mask.kept, 0)[name], kept) for name, kept in other.items())


def test_multiply_adds_are_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(4 * 2 * 2, 3))
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[2].weight[0] = 0
    assert multiply_adds(model, (2, 5, 5)) == (4 * 4 * 9 + 48, 4 * 2 * 9 + 32)
    resnet = timm.create_model("cifar_resnet20")
    assert round(multiply_adds(resnet, (3, 32, 32)).dense / 1e6) == 41  # 41M in the literature


# --- when -------------------------------------------------------------------------------------------------------------


def test_moments():
    assert parse("init") is None
    assert parse("end") == When()
    assert parse("500") == When(step=500)
    assert parse("1.5ep").in_steps(100) == When(step=150)
    assert parse("gradual(10, 50)") == When(step=50, begin=10, every=100)
    for wrong in ("0", "0ep", "ini", "-3", "gradual(50, 10)", "gradual(1.5, 10)", "gradual(1, 10, every=0)", "1e3", ""):
        with pytest.raises(ValueError, match=r"--student\.prune_at"):
            parse(wrong)


def test_gradual_sparsity_is_cubic():
    """Zhu & Gupta 2017, eq. 1, from no sparsity: s_t = s_f + (0 − s_f)(1 − (t − t_0)/(nΔt))³."""
    moment = parse("gradual(10, 50, every=10)")
    due = {step: moment.share(step, False) for step in range(1, 60)}
    assert {step for step, share in due.items() if share is not None} == {10, 20, 30, 40, 50}
    for step in (10, 20, 30, 40, 50):
        assert due[step] == pytest.approx(1 + (0 - 1) * (1 - (step - 10) / 40) ** 3)
    assert moment.share(45, True) == 1  # a training that ends early


# --- training ---------------------------------------------------------------------------------------------------------


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


def zero_bits(model: nn.Module, kept) -> bool:
    """Whether all pruned weights are +0, and no others are zero."""
    parameters = dict(model.named_parameters())
    bits = {name: parameters[name].detach().clone().view(torch.int32) for name in kept}
    return all((bits[name][~one] == 0).all() and (bits[name][one] != 0).all() for name, one in kept.items())


def take_steps(model, sparse, opt: str, steps: int, **options) -> None:
    optimizer = make_optimizer(TrainConfig(opt=opt, lr=0.05, weight_decay=0.1, **options), model, [])
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for _ in range(2):  # accumulated
            x = torch.randn(8, 1, 4, 4, generator=generator)
            F.cross_entropy(model(x), torch.arange(8) % 3).backward()
        sparse.mask_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        sparse.mask_weights()
        optimizer.zero_grad()
        sparse.after_step(step + 1, step + 1 == steps)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "lion", "adafactor", "adabelief", "muon", "adan"])
@pytest.mark.parametrize("at", [None, 3])
def test_zero_stays_zero_bit_for_bit(opt, at):
    model = tiny()
    average = ModelEmaV3(model, decay=0.9)
    kept = kept_of(model)
    sparse = Sparse(
        model, kept if at is None else None, lambda step, done: 0.7 if step == at else None, lambda *_: kept,
        average.module,
    )  # fmt: skip
    assert zero_bits(model, kept) == (at is None)
    for _ in range(3):
        take_steps(model, sparse, opt, 3)
        average.update(model)
    assert zero_bits(model, kept)
    assert zero_bits(average.module, kept)


def test_norms_are_those_of_the_sparse_network():
    model = tiny()
    kept = kept_of(model)
    sparse = Sparse(model, kept)
    F.cross_entropy(model(torch.randn(8, 1, 4, 4)), torch.arange(8) % 3).backward()
    before = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    sparse.mask_gradients()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    squares = sum((g[kept[name]] if name in kept else g).double().square().sum().item() for name, g in before.items())
    assert norm.item() == pytest.approx(squares**0.5)


def test_a_weight_without_a_gradient_is_no_mistake():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    sparse = Sparse(model, {name: torch.eye(2) > 0 for name in ("used.weight", "unused.weight")})
    model["used"](torch.ones(1, 2)).sum().backward()
    sparse.mask_gradients()
    assert model["used"].weight.grad.tolist() == [[1, 0], [0, 1]]


def test_masks_keep_the_memory_format():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    sparse = Sparse(model, {"0.weight": torch.rand(4, 3, 3, 3) < 0.5})
    assert sparse._factors[0].stride() == model[0].weight.stride()


def test_what_was_pruned_on_the_way_is_part_of_a_checkpoint():
    kept = kept_of(tiny())
    first, second = (Sparse(tiny(), None, lambda *_: None, lambda *_: kept) for _ in range(2))
    assert first.state_dict() == {}
    first.prune(kept)
    second.load_state_dict(first.state_dict())
    assert zero_bits(second._models[0], kept)
    assert second.state_dict()["step"] == first.state_dict()["step"]
    assert Sparse(tiny(), kept).state_dict() == {}  # it is part of the run's key


def test_what_is_due_is_done_once_and_made_up_for():
    """A step whose pruning failed is counted: a run that goes on from there prunes before its next step."""
    kept, asked = kept_of(tiny()), []

    def decide(sparsity, alive):
        asked.append(sparsity)
        if len(asked) == 1:
            raise ValueError("collapse")
        return kept

    sparse = Sparse(tiny(), None, lambda step, done: 0.7 if step == 3 else None, decide)
    with pytest.raises(ValueError, match="collapse"):
        sparse.after_step(3, False)
    again = Sparse(tiny(), None, lambda step, done: 0.7 if step == 3 else None, decide)
    again.load_state_dict(sparse.state_dict())
    again.after_step(3, False)
    assert zero_bits(again._models[0], kept)
    third = Sparse(tiny(), None, lambda step, done: 0.7 if step == 3 else None, decide)
    third.load_state_dict(again.state_dict())
    third.after_step(3, False)
    assert asked == [0.7, 0.7]


def test_a_mask_is_applied_as_positive_zeros(mask):
    model = timm.create_model("cifar_resnet8", in_chans=1)
    mask.apply(model)
    assert zero_bits(model, mask.kept)
    assert np.isclose(mask.density, 0.3, atol=0.01)
