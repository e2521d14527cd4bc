"""α policies and schedules, against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprune.alpha import parse

fractions = st.floats(0.001, 1.0)
units = st.floats(0.0, 1.0)


@given(units, fractions)
def test_a_number_is_constant(alpha, keep):
    assert parse(alpha).at(keep) == parse(str(alpha)).at(keep) == parse(f"constant({alpha})").at(keep) == alpha


@given(units, units, fractions, st.floats(0.1, 5.0))
def test_linear_and_power_go_from_nothing_kept_to_all_kept(low, high, keep, p):
    assert parse(f"linear({low}, {high})").at(keep) == pytest.approx((1 - keep) * low + keep * high)
    assert parse(f"power({low}, {high}, {p})").at(keep) == pytest.approx(low + (high - low) * keep**p)
    assert parse(f"power({low}, {high})").at(keep) == pytest.approx(parse(f"linear({low}, {high})").at(keep))


@given(st.dictionaries(fractions, units, min_size=1, max_size=6), fractions)
def test_table_interpolates_whatever_the_order_of_its_points(points, keep):
    xs = sorted(points)
    expected = np.interp(keep, xs, [points[x] for x in xs])
    text = f"table({[[x, points[x]] for x in reversed(xs)]})"
    assert parse(text).at(keep) == pytest.approx(expected, abs=1e-9)


def test_the_default_falls_with_the_keep_fraction():
    from kdprune.config import DistillConfig

    alphas = [parse(DistillConfig().alpha).at(keep) for keep in (0.1, 0.3, 0.5, 1.0)]
    assert alphas == sorted(alphas, reverse=True)
    assert alphas[0] >= 0.9


@given(units)
def test_schedules(progress):
    def at(schedule):
        alpha = parse(f"0.8 * {schedule}").at(0.5, progress)
        assert alpha == parse(f"constant(0.8) * {schedule}").at(0.5, progress)
        return alpha

    assert at("warmup(0.25)") == pytest.approx(0.8 * min(1, progress / 0.25))
    assert at("cosine(0.2)") == pytest.approx(0.8 * (0.2 + 0.8 * (1 + math.cos(math.pi * progress)) / 2))
    assert at("cosine") == pytest.approx(0.8 * (1 + math.cos(math.pi * progress)) / 2)
    assert at("late(0.75)") == (0.8 if progress < 0.75 else 0)
    assert at("warmup(0.5) * late(0.9)") == pytest.approx(0.8 * min(1, progress / 0.5) * (progress < 0.9))


def test_without_progress_the_schedules_are_left_out():
    assert parse("linear(1.0, 0.5) * late(0.1)").at(0.5) == 0.75


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.5", "[0, 1]"),
        ("-0.1", "[0, 1]"),
        ("linaer(1, 0.5)", "did you mean 'linear'"),
        ("searhc", "did you mean 'search'"),
        ("constant(1) * warmpu(0.1)", "did you mean 'warmup'"),
        ("constant(1) * 0.5", "warmup, cosine, late"),
        ("linear(1, 0.5) + 0.1", "after '*'"),
        ("constant", "alpha"),
        ("linear(1.0)", "a_high"),
        ("linear(1.0, a_hihg=1)", "did you mean 'a_high'"),
        ("constant('a')", "constant(0.9)"),
        ("power(1.0, 0.5, -99999)", "power(1.0, 0.5, 2)"),
        ("table([])", "table([["),
        ("table(3)", "table([["),
        ("constant(1) * warmup(0)", "warmup(0.1)"),
        ("constant(2)", "gives 2 at 0.5"),
        ("constant(1) * cosine(-0.5)", "gives -0.5 at 1"),
        ("constant(1) *", "cannot read"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(ValueError, match=r"^--distill\.alpha: ") as caught:
        parse(text)
    assert said in str(caught.value)


def test_arguments_may_be_named():
    assert parse("linear(a_high=0.5, a_low=1.0)").at(0.5) == parse("linear(1.0, 0.5)").at(0.5) == 0.75


def test_an_overflow_at_the_runs_keep_fraction_is_a_mistake_too():
    with pytest.raises(ValueError, match=r"^--distill\.alpha: .* at keep fraction 0\.001"):
        parse("power(0.9, 0.9, -500)").at(0.001)


def test_an_alpha_outside_its_range_at_the_runs_keep_fraction():
    policy = parse("linear(1.4, 0.0)")
    assert policy.at(0.5) == pytest.approx(0.7)
    with pytest.raises(ValueError, match=r"gives α = 1.26 at keep fraction 0.1, allowed is \[0, 1\]"):
        policy.at(0.1)
