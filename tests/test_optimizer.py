"""Optimizers with arguments by timm's names, and the learning rate of other batches."""

from __future__ import annotations

import math

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2
from torch import nn

from kdprune.config import TrainConfig
from kdprune.pipeline.keys import training_key
from kdprune.pipeline.recipes import check_optimizers, overridden
from kdprune.training.optimizer import check_optimizer, learning_rate, make_optimizer
from kdprune.training.schedule import Budget, make_scheduler

from helpers import config_of  # isort: skip


def by_timm(opt: str, batch: int, base: float, size: int, scale: str) -> float:
    """timm's train.py, restated: --lr-base, --lr-base-size, --lr-base-scale."""
    ratio = batch / size
    if not scale:
        scale = "sqrt" if any(part in opt for part in ("ada", "lamb")) else "linear"
    if scale == "sqrt":
        ratio **= 0.5
    return base * ratio


@given(
    opt=st.sampled_from(["sgd", "adamw", "adam", "lamb", "lion", "momentum", "nadam"]),
    batch=st.integers(1, 10**5),
    base=st.floats(1e-5, 10),
    size=st.integers(1, 10**5),
    scale=st.sampled_from([None, "linear", "sqrt"]),
)
def test_the_base_rate_is_scaled_as_timm_scales_it(opt, batch, base, size, scale):
    config = TrainConfig(opt=opt, batch_size=batch, lr_base=base, lr_base_size=size, lr_base_scale=scale)
    assert learning_rate(config) == pytest.approx(by_timm(opt, batch, base, size, scale or ""), rel=1e-12)


def test_the_batch_is_that_of_all_accumulation_steps_and_the_name_that_of_the_optimizer():
    base = TrainConfig(lr_base=0.1, batch_size=512)
    assert learning_rate(base) == 0.2
    assert learning_rate(TrainConfig(lr_base=0.1, batch_size=512, grad_accum=4)) == 0.2
    # An argument's name is no optimizer's.
    assert learning_rate(TrainConfig(lr_base=0.1, batch_size=512, opt="sgd(layer_decay=0.5)")) == 0.2
    assert learning_rate(TrainConfig(lr=0.3, lr_base_size=1)) == 0.3


def test_optimizer_and_schedule_take_the_scaled_rate():
    config = TrainConfig(lr=7.0, lr_base=0.1, batch_size=64, lr_base_size=32, warmup_epochs=1)
    optimizer = make_optimizer(config, nn.Linear(2, 2), [])
    scheduler = make_scheduler(config, optimizer, Budget(20, 640, 64, 10))
    rates = []
    for step in (0, 10):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.002, 0.2])


def test_what_a_teacher_is_given_is_not_overridden_by_the_run():
    run = TrainConfig(lr_base=0.1, steps=5, batch_size=512)
    asked = config_of("out", {"teacher.train.lr": 0.3, "teacher.train.epochs": 2}).teacher.train
    merged = overridden(run, asked)
    assert (learning_rate(merged), merged.steps, merged.epochs) == (0.3, None, 2)
    other_batch = config_of("out", {"teacher.train.batch_size": 256, "teacher.train.steps": 3}).teacher.train
    assert learning_rate(overridden(run, other_batch)) == 0.1
    assert overridden(run, other_batch).steps == 3


@pytest.mark.parametrize(
    ("opt", "arguments"),
    [
        ("adamw(betas=[0.8, 0.95], eps=1e-6)", {"betas": (0.8, 0.95), "eps": 1e-6}),
        ("sgd(dampening=0.1, nesterov=False)", {"dampening": 0.1, "nesterov": False}),
        ("rmsprop(alpha=0.5)", {"alpha": 0.5}),
        ("adamw(fused=False)", {"fused": False}),
    ],
)
def test_arguments_reach_the_optimizer(opt, arguments):
    config = TrainConfig(opt=opt, lr=0.01)
    check_optimizer(config)
    (group,) = make_optimizer(config, nn.Linear(2, 2, bias=False), []).param_groups
    for name, value in arguments.items():
        assert group[name] == pytest.approx(value)


def test_layers_decay_as_timm_has_it():
    model = timm.create_model("resnet18", num_classes=3)
    config = TrainConfig(opt="adamw(layer_decay=0.5)", lr=0.01, weight_decay=0.1, sched="onecycle")
    optimizer = make_optimizer(config, model, [nn.Parameter(model.fc.weight.detach().clone())])
    oracle = create_optimizer_v2(model, "adamw", lr=0.01, weight_decay=0.1, layer_decay=0.5)
    mine = [(g["lr_scale"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups if "lr_scale" in g]
    assert mine == [(g["lr_scale"], g["weight_decay"], len(g["params"])) for g in oracle.param_groups]
    scheduler = make_scheduler(config, optimizer, Budget(10, 640, 64, 10))
    for step in range(10):
        scheduler.step_update(step)
        head = max(group["lr"] for group in optimizer.param_groups)
        assert optimizer.param_groups[-1]["lr"] == head  # parameters of the loss
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(head * group.get("lr_scale", 1))


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("sdg", "'sdg'.*'sgd'"),
        ("adamw(beta=0.9)", "argument of adamw 'beta'.*'betas'"),
        ("sgd(betas=[0.9, 0.99])", "argument of sgd 'betas'"),
        ("adamw(lr=0.1)", "lr=0.1 given, which is --train.lr"),
        ("adamw(0.1)", "NAME=VALUE|ARGUMENT=VALUE"),
        ("adamw(betas=0.9)", "cannot be made"),
        ("adamw(betas=[2, 0.9])", "[Ii]nvalid beta"),
        ("adamw(layer_decay=2)", r"layer_decay=2 given, allowed is \(0, 1\]"),
        ("adamw(layer_decay='x')", "layer_decay='x'"),
        ("adamw(eps=", "cannot read"),
        ("adamw + sgd", "NAME"),
        ("fusedadam", "cannot be made"),
        ("bnbadam8bit(block_wise=False)", "cannot be made|argument of"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused_before_any_work(opt, message):
    with pytest.raises(ValueError, match=rf"(?s)^--train\.opt: .*({message})"):
        check_optimizer(TrainConfig(opt=opt))


def test_optimizers_of_teachers_and_proxies_are_checked_too():
    with pytest.raises(ValueError, match=r"^--teacher\.train\.opt: .*'sgd'"):
        check_optimizers(config_of("out", {"teacher.train.opt": "sdg"}))
    with pytest.raises(ValueError, match=r"^--record\.train\.opt: .*'sgd'"):
        check_optimizers(config_of("out", {"record.train.opt": "sdg"}))


def test_every_optimizer_of_timms_that_is_installed_can_be_made():
    from timm.optim import list_optimizers

    for name in list_optimizers():
        try:
            create_optimizer_v2(nn.Linear(2, 2), opt=name, lr=0.1, weight_decay=5e-4, momentum=0.9)
        except Exception:
            continue
        check_optimizer(TrainConfig(opt=name))


def test_a_key_holds_the_rate_and_none_of_the_ways_to_say_it():
    """So runs of before are found again, and equal trainings are one."""
    plain = training_key(TrainConfig(lr=0.2))
    assert {name for name, value in plain.items() if value is not None} == {
        "epochs", "budget", "batch_size", "grad_accum", "opt", "momentum", "lr", "sched", "min_lr", "warmup_epochs",
        "decay_milestones", "decay_rate", "weight_decay", "smoothing", "compile", "ema", "save_epochs", "save_steps",
    }  # fmt: skip
    assert training_key(TrainConfig(lr=9.0, lr_base=0.1, lr_base_size=64)) == plain
    averaged = training_key(TrainConfig(lr=0.2, ema=0.9))
    assert averaged != training_key(TrainConfig(lr=0.2, ema=0.9, ema_warmup=False)) == {**plain, "ema": 0.9}
    assert math.isclose(averaged["lr"], 0.2)
