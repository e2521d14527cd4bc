"""The statistics of predictions against float64, also where a prediction is nearly certain.

Shapes: N samples, C classes, S statistics.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from kdprune.records.statistics import DERIVED, OF_LABELS, STATISTICS, derived, statistics

LOSS, ERROR_NORM, MARGIN, ENTROPY, LEAST_CONFIDENCE, KL = range(len(STATISTICS))


def one(z, y, before=None):
    """All statistics of a prediction, in float64, with logarithms of sums instead of small differences."""
    z = np.asarray(z, dtype=np.float64)
    log_p = log_softmax(z)
    p = np.exp(log_p)
    others = [c for c in range(len(z)) if c != y]
    top = int(z.argmax())
    rest = [c for c in range(len(z)) if c != top]
    below = np.exp(logsumexp(z[rest]) - logsumexp(z))  # 1 − max p
    kl = np.nan
    if before is not None:
        q = np.exp(log_softmax(np.asarray(before, dtype=np.float64)))
        kl = sum(abs(p[c] * (np.log(p[c] + 1e-8) - np.log(q[c] + 1e-8))) for c in range(len(z)))
    return [
        np.log1p(np.exp(logsumexp(z[others]) - z[y])) if logsumexp(z[others]) < z[y] else -log_p[y],
        np.sqrt(np.exp(logsumexp(z[others]) - logsumexp(z)) ** 2 + sum(p[c] ** 2 for c in others)),
        z[y] - max(z[others]),
        -(1 - below) * np.log1p(-below) - sum(p[c] * log_p[c] for c in rest if p[c] > 0),
        below,
        kl,
    ]


def example(samples: int, classes: int, scale: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits_2NC = scale * torch.randn(2, samples, classes, generator=generator)
    return *logits_2NC, torch.randint(classes, (samples,), generator=generator)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("classes", [2, 10, 300])
def test_statistics_are_their_formulas(classes, scale):
    logits_NC, before_NC, labels_N = example(50, classes, scale)
    labels_N[::2] = logits_NC[::2].argmax(1)  # nearly certain, for a large scale
    found_SN = statistics(logits_NC, labels_N, before_NC.log_softmax(1))
    expected_NS = [one(z, y, q) for z, y, q in zip(logits_NC.numpy(), labels_N, before_NC.numpy(), strict=True)]
    assert found_SN.dtype == torch.float32
    expected_SN = np.array(expected_NS).T
    np.testing.assert_allclose(found_SN[:KL], expected_SN[:KL], rtol=1e-5 * max(1, scale), atol=1e-22)
    np.testing.assert_allclose(found_SN[KL], expected_SN[KL], rtol=1e-4, atol=1e-6)  # a logarithm near 1
    assert statistics(logits_NC, labels_N)[KL].isnan().all()


def test_a_nearly_certain_prediction_keeps_its_digits():
    """z = (40, 0, 0): 1 − p is 8.5e-18, which no difference of float32 or float64 numbers near 1 could be."""
    logits_NC = torch.tensor([[40.0, 0, 0], [40.0, 0, 0]])
    found_SN = statistics(logits_NC, torch.tensor([0, 1]))
    small = 2 * np.exp(-40)
    np.testing.assert_allclose(found_SN[LOSS], [small, 40], rtol=1e-5)
    np.testing.assert_allclose(found_SN[ERROR_NORM], [np.sqrt(1.5) * small, np.sqrt(2)], rtol=1e-5)
    np.testing.assert_allclose(found_SN[LEAST_CONFIDENCE], [small, small], rtol=1e-5)
    np.testing.assert_allclose(found_SN[ENTROPY], small * 41 * np.ones(2), rtol=1e-5)
    assert derived("label_probability", found_SN[LOSS]).tolist() == [1, pytest.approx(np.exp(-40), rel=1e-5)]


def test_float16_tells_sure_predictions_apart():
    """What least confidence is recorded for: max p of all of these is 1 in float16."""
    logits_NC = torch.tensor([[z, 0.0, 0.0] for z in (9.0, 10.0, 11.0, 12.0)])
    stored_SN = statistics(logits_NC, torch.zeros(4, dtype=torch.int64)).half()
    assert (1 - logits_NC.softmax(1).amax(1).half()).count_nonzero() < 4
    for row in (LOSS, ERROR_NORM, ENTROPY, LEAST_CONFIDENCE):
        assert len(stored_SN[row].unique()) == 4, STATISTICS[row]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 20), st.floats(0, 100), st.integers(0, 1000))
def test_statistics_stay_in_their_ranges(classes, scale, seed):
    logits_NC, before_NC, labels_N = example(20, classes, scale, seed)
    s = dict(zip(STATISTICS, statistics(logits_NC, labels_N, before_NC.log_softmax(1)), strict=True))
    assert all(values.isfinite().all() for values in s.values())
    assert (s["loss"] >= 0).all()
    assert ((s["error_norm"] >= 0) & (s["error_norm"] <= np.sqrt(2) + 1e-6)).all()
    assert ((s["entropy"] >= 0) & (s["entropy"] <= np.log(classes) + 1e-5)).all()
    assert ((s["least_confidence"] >= 0) & (s["least_confidence"] <= 1 - 1 / classes + 1e-6)).all()
    assert (s["kl"] >= 0).all()
    assert ((s["margin"] > 0) <= (logits_NC.argmax(1) == labels_N)).all()


def test_a_sample_is_independent_of_its_batch():
    logits_NC, before_NC, labels_N = example(64, 100, 5.0)
    whole_SN = statistics(logits_NC, labels_N, before_NC.log_softmax(1))
    for size in (1, 7):
        parts = zip(logits_NC.split(size), labels_N.split(size), before_NC.log_softmax(1).split(size), strict=True)
        np.testing.assert_allclose(torch.cat([statistics(*part) for part in parts], 1), whole_SN, rtol=1e-5, atol=1e-6)


def test_no_label_and_no_number():
    logits_NC = torch.tensor([[1.0, 2.0], [1.0, 2.0], [torch.nan, 0.0], [0.0, torch.inf], [0.0, -torch.inf]])
    found_SN = statistics(logits_NC, torch.tensor([0, -1, 0, 0, 0]), logits_NC.nan_to_num(0, 0, -30).log_softmax(1))
    assert found_SN[:, 0].isfinite().all()
    names = [name for name in STATISTICS if name in OF_LABELS]
    for row, name in enumerate(STATISTICS):
        assert found_SN[row, 1].isnan() == (name in names)
    assert found_SN[:, 2:4].isnan().all()  # and never 0
    assert found_SN[:, 4].tolist() == [0, 0, torch.inf, 0, 0, pytest.approx(0, abs=1e-6)]  # a class that is left out


def test_half_precision_logits_are_computed_in_float32():
    logits_NC, _, labels_N = example(8, 10, 3.0)
    half_NC = logits_NC.bfloat16()
    torch.testing.assert_close(statistics(half_NC, labels_N)[:KL], statistics(half_NC.float(), labels_N)[:KL])


def test_what_follows_from_a_statistic():
    loss_N = torch.tensor([0.0, 1.0, 1e3, torch.nan])
    assert derived("label_probability", loss_N)[:3].tolist() == [1, pytest.approx(np.exp(-1)), 0]
    assert derived("label_probability", loss_N)[3].isnan()
    correct_N = derived("correct", torch.tensor([0.5, 0.0, -0.5, torch.inf, torch.nan]))
    assert correct_N[:4].tolist() == [1, 0, 0, 1]  # a tie is no right answer
    assert correct_N[4].isnan()
    assert set(DERIVED.values()) <= set(STATISTICS)
