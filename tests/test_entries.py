"""How logits are stored, against the truth in float64.

The tolerances: float16 keeps a logit z to |z|/2048, so logits up to 32 are right to 2⁻⁶ and a mass to 2⁻⁶/T of itself.

Shapes: N samples, C classes, k kept logits.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdprune.teachers.entries import AllLogits, TopK, make_entries

ROUNDING = 2**-6  # of two logits up to 32 in float16
TINY = 2e-3  # of float32 arithmetic and of numbers below float16's smallest normal one

SHAPES = ("normal", "confident", "few", "long_tail", "short_tail")


def realistic(shape: str, classes: int, seed: int, n: int = 32) -> Tensor:
    """Logits N×C as classifiers make them: spread 2, up to three classes that stand out, skewed either way."""
    draw = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, classes, generator=draw)
    if shape == "confident":
        z[:, 0] += 15
    elif shape == "few":
        z[:, : min(3, classes)] += 12 * torch.rand(n, min(3, classes), generator=draw)
    elif shape == "long_tail":
        z = -1.5 * torch.log(-torch.log(torch.rand(n, classes, generator=draw).clamp(1e-6, 1 - 1e-6)))
    elif shape == "short_tail":
        z = torch.log(torch.rand(n, classes, generator=draw).clamp(1e-3)) * 2
    return z


@st.composite
def wide(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Any logits up to ±100, with ties, and a k."""
    classes = draw(st.integers(2, 40))
    row = st.lists(st.floats(-100, 100, width=16), min_size=classes, max_size=classes)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=4))), draw(st.integers(1, classes - 1))


def roundtrip(z: Tensor, k: int, temperature: float) -> Tensor:
    entries = TopK(z.shape[1], k)
    return entries.decode(entries.encode(z), temperature)


def is_top(z: Tensor, k: int) -> Tensor:
    return torch.zeros_like(z, dtype=torch.bool).scatter(1, z.topk(k).indices, True)


def tail_level(z: Tensor, kept: Tensor, temperature: float) -> Tensor:
    """m(T): what all the others would be to have their mass together, float64 N."""
    others = z.double().masked_fill(kept, -math.inf) / temperature
    return temperature * (others.logsumexp(1) - (~kept).sum(1).double().log())


def tail_mass(z: Tensor, kept: Tensor, temperature: float) -> Tensor:
    """Probability of the classes that are not kept, float64 N."""
    return F.softmax(z.double() / temperature, 1).masked_fill(kept, 0).sum(1)


def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    log_p, log_q = (F.log_softmax(z.double() / temperature, 1) for z in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(1)


@given(wide())
def test_all_logits_come_back_within_float16(case):
    z, _ = case
    entries = AllLogits(z.shape[1])
    words = entries.encode(z * 1.0001)
    assert words.dtype == torch.int16
    assert words.shape == (len(z), entries.words)
    for temperature in (1.0, 4.0):
        assert torch.allclose(entries.decode(words, temperature), z * 1.0001, rtol=2**-11, atol=2**-24)


def test_logits_beyond_float16_stay_finite():
    z = torch.tensor([[1e6, -1e6, 0.0, 1.0]])
    assert AllLogits(4).decode(AllLogits(4).encode(z), 1).tolist() == [[65504, -65504, 0, 1]]
    assert roundtrip(z, 1, 2.0).isfinite().all()


@given(wide(), st.sampled_from([0.5, 1.0, 4.0]))
def test_the_k_largest_come_back_within_float16_at_any_temperature(case, temperature):
    z, k = case
    back = roundtrip(z, k, temperature)
    assert back.dtype == torch.float32
    kept = is_top(z, k)
    assert torch.allclose(back[kept], z[kept], rtol=2**-11, atol=2**-24)
    assert all(len(set(row[~mask].tolist())) == 1 for row, mask in zip(back, kept, strict=True))


@given(wide())
def test_the_tail_has_the_true_mass_at_temperature_one(case):
    z, k = case
    kept = is_top(z, k)
    level = roundtrip(z, k, 1.0)[~kept].view(len(z), -1)[:, 0]
    truth = tail_level(z, kept, 1.0)
    assert torch.allclose(level.double(), truth, rtol=2**-11, atol=TINY)


@given(wide(), st.sampled_from([1e3, 1e4, 1e5]))
def test_the_tail_is_right_to_second_order_for_high_temperatures(case, temperature):
    """What m(T) and its stand-in have beyond μ + σ²/(2T) shrinks with 1/T².

    The third cumulant of numbers in a range R is at most R³/(6√3); the stand-in's term is (d - σ²/2)·max(1, σ²/2d).
    """
    z, k = case
    kept = is_top(z, k)
    others = z.double()[~kept].view(len(z), -1)
    mean, variance = others.mean(1), others.var(1, unbiased=False)
    rise = (tail_level(z, kept, 1.0) - mean).clamp(min=1e-12)
    span = others.amax(1) - others.amin(1)
    own = (rise - variance / 2).abs() * (variance / (2 * rise)).clamp(min=1)
    order = (span**3 / (36 * 3**0.5) + own) / temperature**2
    rounding = (mean.abs() + variance / temperature) * 2**-11 + TINY
    level = roundtrip(z, k, temperature)[~kept].view(len(z), -1)[:, 0]
    assert ((level - tail_level(z, kept, temperature)).abs() <= 1.1 * order + rounding).all()


@given(wide(), st.sampled_from([0.25, 0.5, 1.5, 2.0, 4.0, 20.0, 100.0]))
def test_the_tail_stays_within_what_any_logits_allow(case, temperature):
    """m(1) and m(1) + (1 - T)·log n enclose m(T), whatever the others are."""
    z, k = case
    kept = is_top(z, k)
    n = z.shape[1] - k
    one = tail_level(z, kept, 1.0)
    other = one + (1 - temperature) * math.log(n)
    level = roundtrip(z, k, temperature)[~kept].view(len(z), -1)[:, 0].double()
    truth = tail_level(z, kept, temperature)
    for m, slack in ((truth, 1e-9), (level, one.abs() * 2**-11 + (1 + temperature) * TINY)):
        assert (m >= torch.minimum(one, other) - slack).all()
        assert (m <= torch.maximum(one, other) + slack).all()


@settings(max_examples=40)
@given(st.sampled_from(SHAPES), st.sampled_from([(10, 3), (100, 5), (100, 20), (1000, 10)]), st.integers(0, 10**6))
def test_the_tail_has_nearly_its_mass_at_the_temperatures_in_between(shape, sizes, seed):
    """Measured on 512 logits of each kind: at most 0.02 for T in [1.5, 4], below 0.002 at 20."""
    classes, k = sizes
    z = realistic(shape, classes, seed)
    kept = is_top(z, k)
    for temperature, limit in ((2.0, 0.04), (4.0, 0.03), (20.0, 0.004)):
        error = tail_mass(roundtrip(z, k, temperature), kept, temperature) - tail_mass(z, kept, temperature)
        assert error.abs().max() < limit


@settings(max_examples=20)
@given(st.sampled_from(SHAPES), st.integers(0, 10**6))
def test_even_very_wide_logits_keep_a_tail_of_the_right_kind(shape, seed):
    """Spread 20: a cumulant series alone would give the tail all of the mass where it has nearly none."""
    z = 10 * realistic(shape, 100, seed)
    kept = is_top(z, 20)
    for temperature in (1.5, 2.0, 4.0):
        error = tail_mass(roundtrip(z, 20, temperature), kept, temperature) - tail_mass(z, kept, temperature)
        assert error.abs().max() < 0.1


@pytest.mark.parametrize("shape", ["confident", "few", "long_tail"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_learns_nearly_what_the_true_teacher_says(shape, temperature):
    """The gradient of KL(p‖q) is (q - p)/T, so the targets' distance is the gradient's.

    Ten of 100 logits cannot know which of the others is likelier, which costs 0.1 of the mass at T = 4. Probabilities
    that were stored at T = 1 are another distribution there.
    """
    z = realistic(shape, 100, 0, 256)
    student = 0.7 * z + realistic("normal", 100, 1, 256) / 2
    back = roundtrip(z, 10, temperature)
    p, rebuilt = (F.softmax(logits.double() / temperature, 1) for logits in (z, back))
    frozen = F.softmax(z.double(), 1) * is_top(z, 10)
    frozen /= frozen.sum(1, keepdim=True)
    log_q = F.log_softmax(student.double() / temperature, 1)
    true, ours, stale = ((torch.xlogy(t, t) - t * log_q).sum(1) for t in (p, rebuilt, frozen))
    off, far = ((loss - true).abs().mean() for loss in (ours, stale))
    distance, distant = ((target - p).abs().sum(1).mean() / 2 for target in (rebuilt, frozen))
    assert kl(z, back, temperature).mean() < 0.1
    assert distance < 0.12
    assert distance < 0.6 * distant
    assert off < far / 4
    if temperature > 1:
        assert distance < distant / 5
        assert off < far / 50


def test_classes_beyond_int16():
    classes = 2**16
    z = torch.zeros(2, classes)
    z[0, 40_000], z[0, 65_535], z[1, 32_768], z[1, 5] = 9, 7, 8, 6
    back = roundtrip(z, 2, 1.0)
    assert back.topk(2).indices.tolist() == [[40_000, 65_535], [32_768, 5]]
    with pytest.raises(ValueError, match="65537 classes given"):
        TopK(classes + 1, 2)


def test_all_but_one_kept_is_everything():
    z = realistic("few", 10, 0)
    for temperature in (0.5, 1.0, 4.0):
        assert torch.allclose(roundtrip(z, 9, temperature), z, rtol=2**-10, atol=TINY)


@pytest.mark.parametrize("k", [0, -1, 10, 11])
def test_k_must_leave_something_and_keep_something(k):
    with pytest.raises(ValueError, match=r"--teacher.top_k: .* given for 10 classes, allowed is \[1, 9\]"):
        make_entries(10, k)


def test_the_choice_of_entries():
    assert isinstance(make_entries(10, None), AllLogits)
    assert make_entries(10, 3).words == 9  # 4·k + 6 bytes
    assert len({make_entries(10, k).about for k in (None, 1, 2)} | {make_entries(11, 1).about}) == 4


def test_an_entry_can_be_computed_again_with_its_own_classes():
    """Of equal logits either may be kept: what was kept decides what is compared."""
    z = torch.tensor([[5.0, 3.0, 3.0, 1.0]])
    entries = TopK(4, 2)
    swapped = entries.encode(z + torch.tensor([[0, 0, 1e-3, 0]]))
    assert torch.allclose(entries.decode(entries.encode(z, swapped), 2.0), entries.decode(swapped, 2.0), atol=ROUNDING)


def test_a_damaged_entry_names_no_class_that_there_is_not():
    assert TopK(10, 2).decode(torch.full((1, 7), -1, dtype=torch.int16), 1.0).shape == (1, 10)
