"""Frozen teachers: the same answers, faster, and nothing that a trainer could change."""

from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch
from torch import nn

from kdprune.models.build import build_student
from kdprune.teachers import frozen
from kdprune.teachers.folding import fold_batchnorms
from kdprune.teachers.frozen import can_compile, freeze

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lived_in(model: nn.Module) -> nn.Module:
    """With BatchNorms as after training: folding one of a new model changes nothing that a test could see."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    return model.eval()


def teacher_of(name: str = "cifar_resnet8", dtype=torch.float32, size: int = 32, **how):
    model = lived_in(build_student(name, 10, channels=3, image_size=size).model)
    x = torch.randn(4, 3, size, size)
    return model, x, freeze(model, device=CPU, dtype=dtype, example=x, **how)


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("cifar_resnet8", "folded"),
        ("resnet18", "folded"),  # BatchNorm and activation apart
        ("mobilenetv3_small_050", "folded"),  # depthwise, BatchNormAct2d, squeeze-excite
        ("efficientnet_b0", "folded"),
        ("regnetx_002", "folded"),  # grouped, ConvNormAct
        ("resnetv2_18", "folded"),  # pre-activation: only some can be folded
        ("vit_tiny_patch16_224", "plain"),
        ("convnext_atto", "plain"),
        ("mlp_64", "plain"),
    ],
)
def test_logits_are_those_of_the_model(name, route):
    model, x, teacher = teacher_of(name)
    assert teacher.route == route
    with torch.no_grad():
        expected = model(x)
    assert (teacher(x) - expected).norm() / expected.norm() < 1e-4
    assert teacher.relative_error < 1e-4


@pytest.mark.parametrize("fold", [True, False])
def test_bfloat16_stays_near_and_logits_are_float32(fold):
    _, x, teacher = teacher_of(dtype=torch.bfloat16, fold=fold)
    assert teacher.route == ("folded" if fold else "plain")
    assert 0 < teacher.relative_error < frozen.ERROR_LIMIT
    assert teacher(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the trainer's own
        torch.testing.assert_close(teacher(x), teacher(x.contiguous()))


def test_the_model_is_left_as_it_was():
    model = lived_in(timm.create_model("cifar_resnet8")).train()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(4, 3, 32, 32)
    freeze(model, device=CPU, dtype=torch.bfloat16, example=x)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("fold", [True, False])
def test_nothing_that_walks_over_modules_can_reach_a_teacher(fold):
    """Not even where a student keeps it: a teacher in training mode would answer with batch statistics and dropout."""
    _, x, teacher = teacher_of(fold=fold)
    before = teacher(x)
    student = nn.Linear(2, 2)
    student.teacher = teacher
    student.train().to(torch.float64)
    assert not isinstance(teacher, nn.Module)
    assert student.state_dict().keys() == {"weight", "bias"}
    assert len(list(student.parameters())) == 2
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert torch.equal(student.teacher(x), before)


def test_targets_have_no_graph_and_can_be_saved_for_backward():
    _, x, teacher = teacher_of()
    targets = teacher(x.requires_grad_())
    assert not targets.requires_grad
    assert not targets.is_inference()
    weight = torch.ones(10, requires_grad=True)
    (targets * weight).sum().backward()
    assert weight.grad is not None


def test_hooks_find_their_modules_after_folding():
    model, x, teacher = teacher_of()
    seen = {}
    for name, network in (("model", model), ("teacher", teacher.network)):
        network.get_submodule("layer2").register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
    teacher(x)
    with torch.no_grad():
        model(x)
    torch.testing.assert_close(seen["teacher"], seen["model"], rtol=1e-3, atol=1e-4)
    assert teacher.network.state_dict().keys() < {
        *model.state_dict(),
        *(f"{name}.bias" for name, _ in model.named_modules()),
    }


def test_a_faster_route_that_changes_the_logits_is_refused(monkeypatch, caplog):
    def spoil(network, example):
        network.fc.weight.data.mul_(1.1)
        return 1, 1

    monkeypatch.setattr(frozen, "fold_batchnorms", spoil)
    model, x, teacher = teacher_of()
    assert teacher.route == "plain"
    assert teacher.relative_error == 0
    assert "not used" in caplog.text
    torch.testing.assert_close(teacher(x), model(x))


class Cancels(nn.Module):
    """The small difference of two large numbers: nothing is left of it in bfloat16."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.a, self.b = nn.Linear(3 * 8 * 8, 10), nn.Linear(3 * 8 * 8, 10)
        with torch.no_grad():
            self.b.weight.mul_(100)
            self.a.weight.copy_(self.b.weight + 0.01 * self.a.weight)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(1)
        return self.a(x) - self.b(x)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("fold", [True, False])
def test_a_teacher_that_does_not_bear_the_precision_runs_in_float32(caplog, norm, fold):
    torch.manual_seed(0)
    model, x = Cancels(norm).eval(), torch.randn(4, 3, 8, 8)
    teacher = freeze(model, device=CPU, dtype=torch.bfloat16, example=x, fold=fold, name="cancels")
    assert teacher.dtype == torch.float32
    assert teacher.route == ("folded" if norm and fold else "plain")
    torch.testing.assert_close(teacher(x), model(x), rtol=1e-2, atol=1e-3)
    said = [record.getMessage() for record in caplog.records if "runs in float32" in record.getMessage()]
    assert len(said) == 1
    in_bf16 = frozen.FrozenTeacher(copy.deepcopy(model), device=CPU, dtype=torch.bfloat16, route="plain")(x)
    error = (in_bf16 - model(x)).norm() / model(x).norm()
    assert error > 0.1
    for part in ("teacher cancels", "bfloat16", f"{error:.2g}", "0.02"):
        assert part in said[0]


def test_a_precision_that_a_model_does_not_know_is_left_for_float32(caplog):
    class Picky(nn.Linear):
        def forward(self, x):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("not implemented for 'BFloat16'")
            return super().forward(x)

    x = torch.randn(4, 3)
    assert freeze(Picky(3, 2), device=CPU, dtype=torch.bfloat16, example=x).dtype == torch.float32
    assert "not implemented" in caplog.text
    assert "Picky" in caplog.text


def test_a_teacher_whose_logits_are_nought_is_no_worse_in_any_precision():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    assert freeze(model, device=CPU, dtype=torch.bfloat16, example=torch.randn(4, 3)).dtype == torch.bfloat16


def test_a_model_that_cannot_be_folded_is_used_as_it_is(monkeypatch, caplog):
    def fail(network, example):
        raise RuntimeError("no trace")

    monkeypatch.setattr(frozen, "fold_batchnorms", fail)
    assert teacher_of()[2].route == "plain"
    assert "cannot be folded (no trace)" in caplog.text


class Net(nn.Module):
    """conv → BatchNorm, with a `forward` to choose."""

    def __init__(self, forward, conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = conv(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
        self.bn1 = nn.BatchNorm1d(4)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


def pooled(x):
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("forward", "conv", "folded"),
    [
        (lambda net, x: net.bn1(net.fc(pooled(net.bn(net.conv(x))))), nn.Conv2d, 2),
        (lambda net, x: pooled(net.bn(net.conv(x)).relu_()), nn.Conv2d, 1),
        (lambda net, x: pooled((lambda y: net.bn(y) + y)(net.conv(x))), nn.Conv2d, 0),  # read by another, too
        (lambda net, x: pooled(net.bn(net.conv(x).relu_())), nn.Conv2d, 0),  # changed in place on the way
        (lambda net, x: pooled(net.bn(net.conv(x)) + net.bn(net.conv(-x))), nn.Conv2d, 0),  # used twice
        (lambda net, x: pooled(net.bn(net.conv(x)) + net.conv(-x)), nn.Conv2d, 0),
        (lambda net, x: pooled(net.bn(net.conv(x))), Standardised, 0),
        (lambda net, x: pooled(net.bn(net.conv(x)) if x.mean() > -9 else x), nn.Conv2d, 1),  # control flow
    ],
)
def test_folds_what_may_be_folded_and_nothing_else(forward, conv, folded):
    net = lived_in(Net(forward, conv))
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        expected = net(x)
        assert fold_batchnorms(net, x) == (folded, 2)
        torch.testing.assert_close(net(x), expected)


def test_one_batchnorm_at_two_places_is_left_alone():
    net = lived_in(Net(lambda net, x: pooled(net.bn(net.conv(x)))))
    net.alias = net.bn
    assert fold_batchnorms(net, torch.randn(2, 3, 8, 8))[0] == 0


def test_without_running_statistics_there_is_nothing_to_fold():
    net = Net(lambda net, x: pooled(net.bn(net.conv(x)))).eval()
    net.bn = nn.BatchNorm2d(4, track_running_stats=False)
    assert fold_batchnorms(net, torch.randn(2, 3, 8, 8))[0] == 0


def test_batchnorms_that_are_left_keep_float32_statistics():
    _, _, teacher = teacher_of("resnetv2_18", dtype=torch.bfloat16)
    left = [module for module in teacher.network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert left
    assert all(norm.running_var.dtype == torch.float32 for norm in left)
    assert teacher.network.stem.conv.weight.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(CPU), reason="there is no C++ compiler")
def test_compiled_serves_its_batch_size_and_others_do_not_wait(caplog):
    model, _, teacher = teacher_of(compile="auto", size=8, batch_size=6)
    assert teacher.route == "folded+compiled", caplog.text
    assert teacher.relative_error < 1e-4
    for batch in (torch.randn(6, 3, 8, 8), torch.randn(3, 3, 8, 8)):
        torch.testing.assert_close(teacher(batch), model(batch), rtol=1e-3, atol=1e-4)
    # Frozen means that its weights are inside: without those of the network, it still answers.
    with torch.no_grad():
        for parameter in teacher.network.parameters():
            parameter.zero_()
    batch = torch.randn(6, 3, 8, 8)
    assert teacher(batch).any()
    assert not teacher(batch[:3]).any()


def test_a_compiler_that_fails_costs_speed_only(monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: broken)
    assert teacher_of(compile=True)[2].route == "folded"
    assert "no compiler" in caplog.text


def test_the_route_and_its_error_are_logged(caplog):
    with caplog.at_level(logging.INFO):
        teacher_of(dtype=torch.bfloat16)
    assert "7 of 7 BatchNorm layers folded" in caplog.text
    assert "teacher: folded, torch.bfloat16, logits off by" in caplog.text
