"""Per-example gradient norms against the definition: one backward pass a sample."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import kdprune.models  # noqa: F401 -- registers its networks
from kdprune.models.gradient_norms import GradientNorms, last_layer_gradient_norm, rules
from kdprune.models.gradient_norms.convolution import Convolution, Geometry

N = 4


def waves(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of any output whose gradient is another one for each element and sample."""
    flat = outputs.flatten(1)
    pattern = torch.arange(flat.shape[1], dtype=flat.dtype, device=flat.device).cos()
    return (flat.sin() * pattern).sum(1) * (1 + targets)


def brute_force(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Callable = waves, copies: int = 1) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    norms = []
    for i in range(len(inputs)):
        model.train().eval()  # LeViT keeps what it computes of its parameters until then
        value = loss(model(inputs[[i] * copies]), targets[[i] * copies])[0]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        norms.append(sum(g.double().square().sum() for g in gradients if g is not None).sqrt().to(value.dtype))
    return torch.stack(norms)


def assert_equal(measured: Tensor, expected: Tensor, relative: float) -> None:
    assert measured.shape == expected.shape
    assert ((measured - expected).abs() / expected).max() < relative


@contextlib.contextmanager
def closed_forms_only() -> Iterator[None]:
    """No operation is done sample by sample, and no parameter is looped over."""

    def refuse(node, *_):
        raise AssertionError(f"{node.name()} has no closed form")

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*one backward pass a sample")
        patch.setattr(rules, "Masked", refuse)
        yield


class Calls(nn.Module):
    """A module made of parts and of a function of them and the input."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def stored(norm: nn.Module) -> nn.Module:
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def tokens(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(N * shape[0]).view(N, *shape).pow(2) % 7


# ruff: noqa: E501 -- tables with an entry a line
PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "linear on a sequence": (lambda: nn.Linear(5, 6), (3, 5)),
    "linear on a long sequence": (lambda: nn.Linear(5, 6), (40, 5)),
    "linear without bias on a sequence": (lambda: nn.Linear(5, 6, bias=False), (3, 5)),
    "linear on a grid": (lambda: nn.Linear(5, 6), (3, 4, 5)),
    "linear on transposed": (lambda: Calls(lambda m, x: m.a(x.transpose(1, 2)), a=nn.Linear(5, 6)), (5, 4)),
    "linear on tokens first": (lambda: Calls(lambda m, x: m.a(x.transpose(0, 1).contiguous()).transpose(0, 1), a=nn.Linear(5, 6)), (3, 5)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (3, 7, 5)),
    "conv with many channels": (lambda: nn.Conv2d(16, 24, 3, padding=1), (16, 3, 4)),
    "conv without bias": (lambda: nn.Conv2d(3, 4, (3, 2), padding=(1, 0), bias=False), (3, 7, 5)),
    "conv 1×1": (lambda: nn.Conv2d(3, 4, 1), (3, 7, 5)),
    "conv 1×1 strided": (lambda: nn.Conv2d(3, 4, 1, stride=2), (3, 7, 6)),
    "conv patches": (lambda: nn.Conv2d(3, 4, 3, stride=3, padding=1), (3, 8, 7)),
    "conv strided": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 8, 7)),
    "conv dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2), (3, 8, 7)),
    "conv grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, stride=(1, 2)), (4, 8, 7)),
    "conv grouped with many channels": (lambda: nn.Conv2d(32, 32, 3, groups=2, padding=1), (32, 3, 3)),
    "conv depthwise": (lambda: nn.Conv2d(4, 4, 5, groups=4, stride=2, padding=2, dilation=2), (4, 11, 8)),
    "conv depthwise multiplier": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 6, 5)),
    "conv same": (lambda: nn.Conv2d(3, 4, (5, 3), padding="same"), (3, 7, 5)),
    "conv reflect": (lambda: nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (3, 7, 5)),
    "conv circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (3, 7, 5)),
    "conv replicate": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), (3, 7, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 1)), (2, 3, 5, 4)),
    "conv transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 4, 5)),
    "conv transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2), (4, 4, 5)),
    "conv transposed 1d": (lambda: nn.ConvTranspose1d(3, 4, 2, stride=2), (3, 6)),
    "batch norm": (lambda: stored(nn.BatchNorm2d(3)), (3, 5, 4)),
    "batch norm 1d": (lambda: stored(nn.BatchNorm1d(5)), (5,)),
    "layer norm": (lambda: nn.LayerNorm(5), (5,)),
    "layer norm on a sequence": (lambda: nn.LayerNorm(5), (3, 5)),
    "layer norm on two dimensions": (lambda: nn.LayerNorm((4, 5)), (3, 4, 5)),
    "layer norm 2d": (lambda: timm.layers.LayerNorm2d(5), (5, 3, 4)),
    "rms norm": (lambda: nn.RMSNorm(5), (3, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 6), (6, 3, 4)),
    "group norm without positions": (lambda: nn.GroupNorm(2, 6), (6,)),
    "added": (lambda: Calls(lambda m, x: x + m.p, p=parameter(1, 3, 5)), (3, 5)),
    "added with alpha": (lambda: Calls(lambda m, x: torch.add(x, m.p, alpha=3), p=parameter(5)), (3, 5)),
    "subtracted from": (lambda: Calls(lambda m, x: m.p - x, p=parameter(3, 1)), (3, 5)),
    "scaled": (lambda: Calls(lambda m, x: m.p * x, p=parameter(5)), (3, 5)),
    "scaled by one number": (lambda: Calls(lambda m, x: x * m.p, p=parameter()), (3, 5)),
    "divided": (lambda: Calls(lambda m, x: x / (2 + m.p**2), p=parameter(1, 5)), (3, 5)),
    "repeated": (lambda: Calls(lambda m, x: x + m.p.repeat(len(x), 3, 1), p=parameter(1, 1, 5)), (3, 5)),
    "expanded": (lambda: Calls(lambda m, x: torch.cat((m.p.expand(len(x), -1, -1), x), 1), p=parameter(1, 2, 5)), (3, 5)),
    "prelu": (lambda: nn.PReLU(3), (3, 5)),
    "weight standardised": (lambda: timm.layers.StdConv2d(3, 4, 3), (3, 6, 5)),
    "weight standardised, scaled, same": (lambda: timm.layers.ScaledStdConv2dSame(3, 4, 3, stride=2), (3, 7, 6)),
    "conv same of timm": (lambda: timm.layers.Conv2dSame(3, 4, 3, stride=2), (3, 8, 7)),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(5, 3)), (4, 5)),
    "low rank update": (
        lambda: Calls(lambda m, x: F.linear(x, m.w + m.b @ m.a), w=parameter(3, 5), a=parameter(2, 5), b=parameter(3, 2)),
        (4, 5),
    ),
    "called twice": (lambda: Calls(lambda m, x: m.a(m.a(x).relu()), a=nn.Linear(5, 5)), (3, 5)),
    "conv called twice": (lambda: Calls(lambda m, x: m.a(F.avg_pool2d(m.a(x), 2)), a=nn.Conv2d(3, 3, 3, padding=1)), (3, 6, 4)),
    "norm called twice": (lambda: Calls(lambda m, x: m.a(m.a(x).relu()), a=nn.LayerNorm(5)), (3, 5)),
    "tied weights": (lambda: Calls(lambda m, x: F.linear(F.linear(x, m.w).relu(), m.w.T), w=parameter(4, 5)), (3, 5)),
    "attention": (lambda: Calls(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(6, 2, batch_first=True)), (3, 6)),
    "attention, tokens first": (
        lambda: Calls(lambda m, x: m.a(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1), a=nn.MultiheadAttention(6, 2)),
        (3, 6),
    ),
    "attention across": (
        lambda: Calls(
            lambda m, x: m.a(x[..., :6], x[:, 1:, 6:], x[:, 1:, 6:])[0],
            a=nn.MultiheadAttention(6, 2, kdim=4, vdim=4, batch_first=True),
        ),
        (3, 10),
    ),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (3, 6)),
    "relative positions": (
        lambda: Calls(lambda m, x: x + m.t[torch.tensor([0, 2, 2, 1, 0])].T.contiguous()[None], t=parameter(4, 3)),
        (3, 5),
    ),
    "windows": (
        lambda: Calls(lambda m, x: (m.a(x.view(-1, 2, 5)) + m.p).view(-1, 6, 5), a=nn.Linear(5, 5), p=parameter(1, 2, 5)),
        (6, 5),
    ),
    "prelu on windows": (lambda: Calls(lambda m, x: m.a(x.flatten(0, 1)).unflatten(0, (-1, 3)), a=nn.PReLU(2)), (3, 2, 4)),
}  # fmt: skip


OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bilinear": (lambda: Calls(lambda m, x: m.a(x, x.sin()), a=nn.Bilinear(3, 3, 2)), (3,)),
    "tiled": (lambda: Calls(lambda m, x: x + m.p.repeat(len(x), 2, 1), p=parameter(1, 3, 5)), (6, 5)),
    "einsum": (lambda: Calls(lambda m, x: torch.einsum("nhi,hio->nho", x, m.w), w=parameter(3, 5, 4)), (3, 5)),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 5, 4)),
    "conv in windows": (
        lambda: Calls(lambda m, x: m.a(x.flatten(0, 1)).unflatten(0, (-1, 3)), a=nn.Conv2d(2, 3, 3)),
        (3, 2, 5, 4),
    ),
    "recurrent": (lambda: Calls(lambda m, x: m.a(x)[0], a=nn.GRU(5, 4, batch_first=True)), (3, 5)),
}


def measured_and_expected(make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    model = make().eval().to(dtype)
    inputs, targets = torch.randn(N, *shape, dtype=dtype), torch.arange(N)
    return [GradientNorms(model, waves)(inputs, targets), brute_force(model, inputs, targets)]


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", PLAIN)
def test_a_layer_agrees_with_the_loop_without_a_loop(name, dtype, relative):
    with closed_forms_only():
        measured, expected = measured_and_expected(*PLAIN[name], dtype)
    assert measured.dtype == dtype
    assert_equal(measured, expected, relative)


@pytest.mark.filterwarnings("ignore:.*one backward pass a sample", "ignore:.*performance drop")
@pytest.mark.parametrize("name", OTHERS)
def test_what_has_no_closed_form_agrees_too(name):
    assert_equal(*measured_and_expected(*OTHERS[name], torch.float64), 1e-11)


@pytest.mark.parametrize("padding", [None, 3])
def test_tokens_that_repeat_share_a_row_of_the_table(padding):
    table = nn.Embedding(7, 5, padding_idx=padding).double().eval()
    with closed_forms_only():
        measured = GradientNorms(table, waves)(tokens((6,)), torch.arange(N))
    assert_equal(measured, brute_force(table, tokens((6,)), torch.arange(N)), 1e-11)


def test_an_embedding_tied_to_the_classifier_has_one_gradient():
    model = Calls(lambda m, x: F.linear(m.a(x).tanh().mean(1), m.a.weight), a=nn.Embedding(7, 5)).double().eval()
    with closed_forms_only():
        measured = GradientNorms(model)(tokens((6,)), torch.arange(N))
    assert_equal(measured, brute_force(model, tokens((6,)), torch.arange(N), cross_entropies), 1e-11)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, int, int, tuple[int, ...]]:
    ndim = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(ndim))  # noqa: E731
    kernel, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    size = tuple(d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True))
    geometry = Geometry(kernel, stride, padding, dilation, draw(st.integers(1, 2)))
    return geometry, draw(st.integers(1, 3)), draw(st.integers(1, 3)), size


@given(geometries())
def test_each_form_of_a_convolution_is_its_weight_gradient(case):
    geometry, inputs, outputs, size = case
    ndim, groups = len(size), geometry.groups
    x = torch.randn(2, inputs * groups, *size, dtype=torch.float64)
    weight = torch.zeros(outputs * groups, inputs, *geometry.kernel, dtype=torch.float64, requires_grad=True)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[ndim - 1]
    out = convolve(x, weight, None, geometry.stride, geometry.padding, geometry.dilation, groups)
    g = torch.randn_like(out)
    expected = torch.stack([torch.autograd.grad(out[i], weight, g[i], retain_graph=True)[0] for i in range(2)])
    form = Convolution(x, g, geometry)
    torch.testing.assert_close(form.gradients(0, 2), expected)
    norms = expected.flatten(1).square().sum(1)
    for squares in (form.squares(), form._gram(x, g), form._shifted(x, g)):
        torch.testing.assert_close(squares, norms)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


SMALL = {
    "cifar_resnet8": {"img": 32},
    "mlp_64": {"img": 28, "img_size": 28},
    "resnet10t": {"img": 64},
    "vit_tiny_patch16_224": {"img": 32, "img_size": 32, "patch_size": 8, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"img": 32, "img_size": 32, "depth": 2},
    "cait_xxs24_224": {"img": 32, "img_size": 32, "depth": 2},
    "beit_base_patch16_224": {"img": 32, "img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 2},
    "swin_tiny_patch4_window7_224": {
        "img": 32, "img_size": 32, "window_size": 2, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4),
    },
    "convnext_atto": {"img": 32, "depths": (1, 1, 2, 1)},
    "mobilenetv3_small_050": {"img": 32},
    "tf_efficientnet_b0": {"img": 32},
    "regnetx_002": {"img": 32},
}  # fmt: skip
SLOW = {
    "mixer_s32_224": {"img": 64, "img_size": 64},
    "nf_regnet_b0": {"img": 32},
    "resnet18": {"img": 64},
    "swinv2_tiny_window8_256": {"img": 64, "img_size": 64, "window_size": 4},
    "dm_nfnet_f0": {"img": 64},
    "maxvit_tiny_rw_224": {"img": 64, "img_size": 64},
    "crossvit_9_240": {"img": 240},
    "xcit_nano_12_p16_224": {"img": 64},
    "eva02_tiny_patch14_224": {"img": 56, "img_size": 56},
    "coatnet_0_rw_224": {"img": 64, "img_size": 64},
    "levit_128s": {"img": 224},
    "resnet26t": {"img": 64},
    "seresnext26t_32x4d": {"img": 64},
    "densenet121": {"img": 64},
    "poolformer_s12": {"img": 64},
}


# Where PyTorch's own gradients of a batch of one are wrong: see test_a_batch_of_one_is_no_different.
WRONG_ALONE = ("levit_128s", "xcit_nano_12_p16_224")


def timm_model(name: str, settings: dict) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    settings = dict(settings)
    side = settings.pop("img")
    model = timm.create_model(name, num_classes=5, **settings).eval()
    return model, torch.randn(3, 1 if name.startswith("mlp_") else 3, side, side)


@pytest.mark.filterwarnings("ignore:.*one backward pass a sample")
@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_models_of_timm_agree_with_the_loop(name):
    model, images = timm_model(name, SMALL.get(name) or SLOW[name])
    labels = torch.arange(3)
    # LeViT at its start hardly uses some of its queries: too little is seen of them to trust a closed form.
    with warnings.catch_warnings() if name == "levit_128s" else closed_forms_only():
        measured = GradientNorms(model)(images, labels)
    copies = 2 if name in WRONG_ALONE else 1
    assert_equal(measured, brute_force(model, images, labels, cross_entropies, copies), 1e-5)


@pytest.fixture
def small() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet8", num_classes=5).eval()
    return model, torch.randn(7, 3, 32, 32), torch.arange(7) % 5


def test_a_short_last_batch_is_no_different(small):
    model, images, labels = small
    norms = GradientNorms(model)
    whole = norms(images, labels)
    for size in (1, 2, 3, 5):
        parts = [norms(x, y) for x, y in zip(images.split(size), labels.split(size), strict=True)]
        assert_equal(torch.cat(parts), whole, 1e-5)


def test_a_batch_of_one_is_no_different():
    """Not even where PyTorch's BatchNorm in eval mode confuses the strides of a gradient of one image."""
    model = Calls(
        lambda m, x: m.c(m.b(m.a(x)).flatten(2).transpose(1, 2)),
        a=nn.Conv2d(3, 4, 3), b=stored(nn.BatchNorm2d(4)), c=nn.Linear(4, 2),
    ).double().eval()  # fmt: skip
    images = torch.randn(N, 3, 6, 6, dtype=torch.float64)
    norms = GradientNorms(model, waves)
    whole = norms(images, torch.arange(N))
    alone = [norms(images[i : i + 1], torch.arange(N)[i : i + 1]) for i in range(N)]
    assert_equal(torch.cat(alone), whole, 1e-11)
    assert_equal(whole, brute_force(model, images, torch.arange(N), copies=2), 1e-11)


def test_the_order_of_a_batch_does_not_matter(small):
    model, images, labels = small
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert_equal(GradientNorms(model)(images[order], labels[order]), GradientNorms(model)(images, labels)[order], 1e-5)


def test_frozen_parameters_do_not_count(small):
    model, images, labels = small
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(("conv1", "fc")))
    measured = GradientNorms(model)(images, labels)
    assert_equal(measured, brute_force(model, images, labels, cross_entropies), 1e-5)


def test_nothing_is_left_on_the_model(small):
    model, images, labels = small
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with torch.no_grad():
        norms = GradientNorms(model)(images, labels)
    assert not norms.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_weights_may_change_between_batches(small):
    model, images, labels = small
    norms = GradientNorms(model)
    norms(images, labels)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.1)
    assert_equal(norms(images, labels), brute_force(model, images, labels, cross_entropies), 1e-5)


def test_memory_formats_and_autocast_are_taken(small):
    model, images, labels = small
    plain = GradientNorms(model)(images, labels)
    with torch.autocast("cpu", torch.bfloat16):
        low = GradientNorms(model)(images, labels)
    assert low.dtype == torch.float32
    assert_equal(low, plain, 0.05)
    model.to(memory_format=torch.channels_last)
    assert_equal(GradientNorms(model)(images.to(memory_format=torch.channels_last), labels), plain, 1e-5)


def test_branches_that_are_closed_at_first_are_placed_right():
    """At its start the scale is zero and nothing is seen of the layer, whose samples lie side by side, not in turn."""
    model = Calls(
        lambda m, x: x + m.p * m.a(x.transpose(0, 1).contiguous()).transpose(0, 1),
        a=nn.Linear(5, 5), p=nn.Parameter(torch.zeros(5)),
    ).double().eval()  # fmt: skip
    norms = GradientNorms(model, waves)
    images = torch.randn(N, 3, 5, dtype=torch.float64)
    norms(images, torch.arange(N))
    with torch.no_grad():
        model.p += 1
    assert_equal(norms(images, torch.arange(N)), brute_force(model, images, torch.arange(N)), 1e-11)


def test_equal_images_do_not_hide_that_samples_lie_in_another_order():
    model = Calls(lambda m, x: m.a(x.transpose(0, 1).contiguous()).transpose(0, 1), a=nn.Linear(5, 5)).double().eval()
    norms = GradientNorms(model, waves)
    norms(torch.ones(N, 3, 5, dtype=torch.float64), torch.zeros(N, dtype=torch.long))
    images = torch.randn(N, 3, 5, dtype=torch.float64)
    assert_equal(norms(images, torch.arange(N)), brute_force(model, images, torch.arange(N)), 1e-11)


def test_a_model_that_takes_samples_one_by_one_is_looped_over_with_a_warning():
    model = Calls(lambda m, x: torch.cat([m.a(row[None]) for row in x]), a=nn.Linear(5, 3)).double().eval()
    inputs = torch.randn(N, 5, dtype=torch.float64)
    with pytest.warns(UserWarning, match="one backward pass a sample"):
        measured = GradientNorms(model, waves)(inputs, torch.arange(N))
    assert_equal(measured, brute_force(model, inputs, torch.arange(N)), 1e-11)


def test_another_path_through_the_model_gets_its_own_plan():
    model = Calls(
        lambda m, x: m.a(x) if x.sum() > 0 else m.b(x).tanh(), a=nn.Linear(5, 3), b=nn.Linear(5, 3)
    ).double().eval()  # fmt: skip
    norms = GradientNorms(model, waves)
    for inputs in (torch.rand(N, 5).double(), -torch.rand(N, 5).double(), torch.rand(N, 5).double()):
        assert_equal(norms(inputs, torch.arange(N)), brute_force(model, inputs, torch.arange(N)), 1e-11)


def test_a_model_in_training_mode_is_refused(small):
    model, images, labels = small
    with pytest.raises(ValueError, match=r"bn1 \(BatchNorm2d\).*eval"):
        GradientNorms(model.train())(images, labels)
    dropping = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval()
    dropping[1].train()
    with pytest.raises(ValueError, match=r"1 \(Dropout\).*eval"):
        GradientNorms(dropping)(torch.randn(2, 3), torch.arange(2))


def test_batch_statistics_are_refused_in_eval_mode_too():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\)"):
        GradientNorms(model)(torch.randn(3, 4), torch.arange(3))


def test_a_model_that_mixes_samples_is_refused():
    model = Calls(lambda m, x: m.a(x - x.mean(0)), a=nn.Linear(4, 4)).eval()
    with pytest.raises(ValueError, match="mixes the samples"):
        GradientNorms(model)(torch.randn(3, 4), torch.arange(3))


def test_a_loss_of_the_whole_batch_is_refused():
    with pytest.raises(ValueError, match="one number a sample"):
        GradientNorms(nn.Linear(4, 4).eval(), F.cross_entropy)(torch.randn(3, 4), torch.arange(3))


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter"):
        GradientNorms(nn.Linear(4, 4).eval().requires_grad_(False))(torch.randn(3, 4), torch.arange(3))


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_in_closed_form_is_that_of_the_loop(bias):
    classifier = nn.Linear(6, 5, bias=bias).double()
    features, labels = torch.randn(N, 6, dtype=torch.float64), torch.arange(N)
    measured = last_layer_gradient_norm(classifier(features), features, labels, bias)
    assert_equal(measured, brute_force(classifier, features, labels, cross_entropies), 1e-12)
