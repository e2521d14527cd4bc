"""Curves through short runs: against a literal restatement, planted curves, and how often their intervals hold."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, stdtrit
from scipy.stats import multivariate_t

from kdprune.planning import curve
from kdprune.planning.curve import LEVEL, Curve, Noise, chances, log_odds, pooled_noise, variance

STEPS = [30, 30, 90, 90, 270, 270]
QUIET = Noise(0.1, 30.0)


def planted(share: float, exponent: float, level: float, steps: float) -> float:
    """The accuracy of a curve of the family, `level` the error at 270 steps."""
    odds = level / (1 - level) * (share + (1 - share) * (steps / 270) ** -exponent)
    return 1 / (1 + odds)


def literal(steps: list[int], top1: list[float], count: int, noise: Noise, at: int) -> tuple[float, float, float]:
    """Median and ends for a run of `at` steps, shape by shape and quantile by quantile."""
    atoms = []
    longest = max(steps)
    lengths = sorted(set(steps))
    measured = [math.log(((1 - p) * count + 0.5) / (p * count + 0.5)) for p in top1]
    odds = [statistics.mean(y for s, y in zip(steps, measured, strict=True) if s == length) for length in lengths]
    runs, steps = [steps.count(length) for length in lengths], lengths
    error = [1 / (1 + math.exp(-y)) for y in odds]
    spread = [1 / ((count + 1) * e * (1 - e)) + curve.SEEDS**2 for e in error]
    drift = [(curve.DRIFT * math.log(s / longest)) ** 2 for s in steps]
    weights = [1 / (noise.scale * v / n + d) for v, n, d in zip(spread, runs, drift, strict=True)]
    for share in np.linspace(0, 1, 17):
        for exponent in np.geomspace(0.1, 2.5, 17):
            shape = [math.log(share + (1 - share) * (s / longest) ** -exponent) for s in steps]
            level = sum(w * (y - g) for w, y, g in zip(weights, odds, shape, strict=True)) / sum(weights)
            misfit = sum(w * (y - g - level) ** 2 for w, y, g in zip(weights, odds, shape, strict=True))
            prior = math.exp(-0.5 * (math.log(exponent / 0.7) / 0.7) ** 2)
            weight = prior * (1 + misfit / noise.freedom) ** (-(noise.freedom + len(steps) - 1) / 2)
            center = level + math.log(share + (1 - share) * (at / longest) ** -exponent)
            e = 1 / (1 + math.exp(-center))
            v = noise.scale * (1 / ((count + 1) * e * (1 - e)) + curve.SEEDS**2)
            v += 1 / sum(weights) + (curve.DRIFT * math.log(at / longest)) ** 2
            for t in range(99):
                atoms.append((center + math.sqrt(v) * float(stdtrit(noise.freedom, (t + 0.5) / 99)), weight / 99))
    atoms.sort()
    total, below, ends = sum(weight for _, weight in atoms), 0.0, {}
    for value, weight in atoms:
        below += weight / total
        for share in ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2):
            if below >= share:
                ends.setdefault(share, value)
    low, middle, high = (ends[share] for share in sorted(ends))
    return (1 / (1 + math.exp(middle)), 1 / (1 + math.exp(high)), 1 / (1 + math.exp(low)))


@pytest.mark.parametrize("at", [90, 270, 2700])
def test_a_prediction_is_that_of_a_literal_restatement(at):
    top1 = [0.52, 0.55, 0.71, 0.68, 0.8, 0.82]
    noise = Noise(0.7, 9.0)
    found = Curve(STEPS, top1, 500, noise).predict(at)
    assert (found.median, found.low, found.high) == pytest.approx(literal(STEPS, top1, 500, noise, at), abs=1e-3)


curves = {"share": st.floats(0.1, 0.9), "exponent": st.floats(0.3, 1.3), "level": st.floats(0.03, 0.6)}


@given(**curves, ratio=st.sampled_from([1, 3, 10]))
def test_a_planted_curve_is_found_again(share, exponent, level, ratio):
    steps = [10 * 2**power for power in range(9)]
    top1 = [planted(share, exponent, level, s) for s in steps]
    predicted = Curve(steps, top1, 5000, QUIET).predict(steps[-1] * ratio)
    truth = planted(share, exponent, level, steps[-1] * ratio)
    assert predicted.low <= truth <= predicted.high
    assert abs(log_odds(predicted.median, 10**9) - log_odds(truth, 10**9)) < 0.15 + 0.25 * math.log(ratio)


@given(**curves)
def test_a_curve_goes_through_its_runs_and_knows_less_the_farther_it_goes(share, exponent, level):
    found = Curve(STEPS, [planted(share, exponent, level, s) for s in STEPS], 5000, QUIET)
    assert found.predict(270).median == pytest.approx(1 - level, abs=0.03)
    widths = []
    for ratio in (1, 10, 100):
        predicted = found.predict(270 * ratio)
        widths.append(float(log_odds(predicted.low, 10**9) - log_odds(predicted.high, 10**9)))
    assert widths == sorted(widths)
    medians = [found.predict(steps).median for steps in (30, 90, 270, 900, 9000)]
    assert medians == sorted(medians), "more steps are not expected to harm"


@given(st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=6, max_size=6))
def test_extremes_stay_finite(top1):
    predicted = Curve(STEPS, top1, 20, pooled_noise([top1[:2], top1[2:4], top1[4:]], 20)).predict(10**6)
    assert 0 <= predicted.low <= predicted.median <= predicted.high <= 1


def test_other_samples_widen_the_interval_by_their_counting_and_no_more():
    found = Curve(STEPS, [0.5, 0.5, 0.7, 0.7, 0.8, 0.8], 500, QUIET)
    same, few, many = (found.predict(810, count) for count in (None, 50, 10**9))
    assert few.high - few.low > same.high - same.low
    assert many.high - many.low == pytest.approx(same.high - same.low, rel=1e-3)


def test_ever_more_seeds_do_not_make_a_curve_certain_of_its_shape():
    top1 = [0.5, 0.5, 0.68, 0.68, 0.8, 0.8]
    few, many = (Curve(STEPS * times, top1 * times, 500, QUIET).predict(8100) for times in (1, 200))
    assert many.high - many.low > 0.8 * (few.high - few.low)


def test_shapes_are_weighed_by_what_remains_when_the_level_is_integrated_out():
    noise, top1 = Noise(0.8, 6.0), [0.4, 0.45, 0.62, 0.6, 0.81, 0.83]
    found = Curve(STEPS, top1, 300, noise)
    steps, odds = np.array([30, 90, 270]), log_odds(np.array(top1), 300).reshape(3, 2).mean(1)
    spread = noise.scale * variance(odds, 300) / 2 + (curve.DRIFT * np.log(steps / 270)) ** 2
    levels = np.linspace(-12, 12, 24_001)[:, None]
    weights = []
    for share in np.linspace(0, 1, 17):
        for exponent in np.geomspace(0.1, 2.5, 17):
            center = levels + np.log(share + (1 - share) * (steps / 270) ** -exponent)
            density = multivariate_t(np.zeros(3), np.diag(spread), df=noise.freedom).pdf(odds - center)
            weights.append(density.sum() * math.exp(-0.5 * (math.log(exponent / 0.7) / 0.7) ** 2))
    kept = np.array(weights)[found._kept]
    assert found.weights_K == pytest.approx(kept / kept.sum(), rel=1e-3)


def test_one_length_is_no_curve():
    with pytest.raises(ValueError, match=r"two lengths.*1"):
        Curve([30, 30], [0.5, 0.6], 100, QUIET)


@given(st.lists(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=4), max_size=5))
def test_noise_is_pooled_over_runs_that_differ_in_their_seed(repeats):
    squares, freedom = 4.0, 4.0
    for group in repeats:
        values = [float(log_odds(value, 200)) for value in group]
        mean = statistics.mean(values)
        squares += sum((value - mean) ** 2 for value in values) / float(variance(mean, 200))
        freedom += len(values) - 1
    found = pooled_noise(repeats, 200)
    assert (found.scale, found.freedom) == pytest.approx((squares / freedom, freedom))


def test_intervals_hold_as_often_as_they_say_for_curves_of_other_families():
    """500 arms, half of them stretched exponentials, with noise of seeds and of counting on common samples."""
    random = np.random.default_rng(0)
    held = [_holds(random) for _ in range(500)]
    assert LEVEL - 0.05 <= np.mean(held) <= 0.995


def _holds(random: np.random.Generator, count: int = 400, longest: int = 2700) -> bool:
    """Whether the run of an arm lies in the interval that its pilots give."""
    share, exponent = random.uniform(0, 0.9), random.uniform(0.3, 1.3)
    level, bend = random.uniform(0.05, 0.5), random.uniform(0.2, 0.6)
    power = random.random() < 0.5
    judges = random.normal(0, 1 / math.sqrt(count * level * (1 - level)))  # how hard the samples are that judge

    def measured(steps: int) -> float:
        x = steps / 270
        fallen = x**-exponent if power else math.exp(exponent * (1 - x**bend))
        odds = math.log(level / (1 - level)) + math.log(share + (1 - share) * fallen)
        return float(expit(-(odds + judges + random.normal(0, 0.08))))

    top1 = [measured(steps) for steps in STEPS]
    noise = pooled_noise([top1[:2], top1[2:4], top1[4:]], count)
    predicted = Curve(STEPS, top1, count, noise).predict(longest)
    return predicted.low <= measured(longest) <= predicted.high


def test_chances_are_those_of_draws():
    arms = [Curve(STEPS, [p - 0.2, p - 0.2, p - 0.1, p - 0.1, p, p], 300, QUIET) for p in (0.8, 0.82, 0.7)]
    distributions = [arm.distribution(810) for arm in arms]
    random = np.random.default_rng(0)
    draws = [np.interp(random.uniform(size=200_000), below, odds) for odds, below in distributions]
    expected = np.bincount(np.argmin(draws, axis=0), minlength=3) / 200_000
    assert chances(distributions) == pytest.approx(expected, abs=0.01)
    assert chances(distributions[:1]) == pytest.approx([1.0])
    assert chances([distributions[0]] * 4) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("top1", [(0.001, 0.0008), (2e-5, 1e-5), (0.5, 0.0), (1.0, 0.999), (0.9, 0.3)])
def test_chances_are_those_of_draws_wherever_accuracies_lie(top1):
    """Thousands of classes have accuracies near nothing, and an easy data set has hardly any errors."""
    arms = [Curve(STEPS, [value] * 6, 100_000, Noise(0.1, 30.0)) for value in top1]
    distributions = [arm.distribution(270) for arm in arms]
    random = np.random.default_rng(1)
    draws = [np.interp(random.uniform(size=200_000), below, odds) for odds, below in distributions]
    expected = np.bincount(np.argmin(draws, axis=0), minlength=2) / 200_000
    assert chances(distributions) == pytest.approx(expected, abs=0.01)
