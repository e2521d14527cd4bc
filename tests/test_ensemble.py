"""Several teachers as one: Σ w·KL(p_k‖q) = KL(p̄‖q) + a term without q."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdprune.losses.kd import kd
from kdprune.teachers.ensemble import combine, normalised

temperatures = st.floats(0.5, 20)


@st.composite
def ensembles(draw):
    teachers, n, classes = draw(st.integers(2, 4)), draw(st.integers(1, 5)), draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    logits = [4 * torch.randn(n, classes, generator=generator) for _ in range(teachers)]
    weights = normalised(draw(st.lists(st.floats(0.01, 1), min_size=teachers, max_size=teachers)), teachers)
    each = draw(st.lists(temperatures, min_size=teachers, max_size=teachers))
    return logits, weights, each, torch.randn(n, classes, generator=generator)


def gradient(loss_of, student: torch.Tensor) -> torch.Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss_of(student), student)[0]


@given(ensembles(), temperatures)
def test_one_combined_teacher_teaches_what_all_of_them_do(case, t):
    """Up to a constant, so the differences between any two students and the gradients are equal."""
    logits, weights, _, student = case
    combined = combine(logits, t, weights, [t] * len(logits))

    def apart(q):
        return sum(w * kd(q, z, t) for w, z in zip(weights, logits, strict=True))

    def together(q):
        return kd(q, combined, t)

    assert torch.allclose(gradient(together, student), gradient(apart, student), atol=1e-4 * t)
    other = student.flip(0) * 0.5
    assert torch.allclose(together(student) - together(other), apart(student) - apart(other), atol=1e-3 * t**2)


@given(ensembles(), temperatures)
def test_equal_weights_make_the_sum_over_teachers_k_times_the_mean(case, t):
    logits, _, _, student = case
    count = len(logits)
    combined = combine(logits, t, normalised(None, count), [t] * count)
    summed = gradient(lambda q: sum(kd(q, z, t) for z in logits), student)
    assert torch.allclose(summed, count * gradient(lambda q: kd(q, combined, t), student), atol=1e-4 * t * count)


@given(ensembles(), temperatures)
def test_probabilities_are_averaged_each_at_its_own_temperature(case, t):
    logits, weights, each, _ = case
    combined = combine(logits, t, weights, each)
    mean = sum(w * (z.double() / k).softmax(1) for w, z, k in zip(weights, logits, each, strict=True))
    assert combined.dtype == torch.float32
    assert torch.allclose((combined.double() / t).softmax(1), mean, atol=1e-5)


@given(ensembles(), temperatures)
def test_a_single_teacher_is_handed_through(case, t):
    (logits, *_), _, (own_t, *_), _ = case
    assert torch.equal(combine([logits], t, [1.0], [t]), logits)
    assert torch.allclose((combine([logits], t, [1.0], [own_t]) / t).softmax(1), (logits / own_t).softmax(1), atol=1e-5)


@given(ensembles(), temperatures)
def test_twice_the_same_teacher_is_that_teacher(case, t):
    """Its logits too, for losses that compare logits."""
    (logits, *_), (weight, *_), _, _ = case
    assert torch.allclose(combine([logits, logits], t, [weight, 1 - weight], [t, t]), logits, atol=1e-4 * t)


@given(ensembles(), temperatures)
def test_a_teacher_of_weight_zero_says_nothing(case, t):
    logits, _, each, _ = case
    loud = [*logits, torch.full_like(logits[0], 50.0)]
    weights = normalised([1.0] * len(logits) + [0.0], len(loud))
    combined = combine(loud, t, weights, [*each, 1.0])
    assert combined.isfinite().all()
    assert torch.allclose(combined, combine(logits, t, normalised(None, len(logits)), each), atol=1e-4 * t)


def test_low_precision_logits_and_confident_teachers_stay_finite():
    logits = [torch.tensor([[300.0, -300.0, 0.0]]).bfloat16(), torch.tensor([[-300.0, 300.0, 0.0]]).bfloat16()]
    combined = combine(logits, 1.0, [0.5, 0.5], [1.0, 1.0])
    assert combined.dtype == torch.float32
    assert torch.allclose(combined.softmax(1), torch.tensor([[0.5, 0.5, 0.0]]))


@pytest.mark.parametrize(
    ("given_", "count", "expected"),
    [(None, 4, [0.25] * 4), ([3.0, 1.0], 2, [0.75, 0.25]), ([0.0, 2.0], 2, [0.0, 1.0])],
)
def test_weights_add_up_to_one(given_, count, expected):
    assert normalised(given_, count) == expected
