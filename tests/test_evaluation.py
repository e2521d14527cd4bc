"""Held-out accuracy and calibration, against numpy written out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdprune.passes.evaluation import BINS, BYTES, MOST, Evaluation, batch_for

CPU = torch.device("cpu")


def oracle(logits: np.ndarray, labels: np.ndarray) -> dict:
    n, classes = logits.shape
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    ranks = np.array([(row > row[label]).sum() for row, label in zip(logits, labels, strict=True)])
    confidence = p.max(1)
    gap = 0.0
    for b in range(BINS):
        inside = [
            i for i in range(n) if b / BINS <= confidence[i] < (b + 1) / BINS or (b == BINS - 1 and confidence[i] == 1)
        ]
        if inside:
            gap += len(inside) / n * abs(np.mean(ranks[inside] == 0) - np.mean(confidence[inside]))
    return {
        "top1": np.mean(ranks == 0),
        "top5": np.mean(ranks < 5),
        "loss": np.mean(-np.log(p[np.arange(n), labels])),
        "samples": n,
        "per_class": [np.mean(ranks[labels == c] == 0) for c in range(classes)],
        "calibration_error": gap,
    }


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 60), st.integers(1, 25))
def test_figures_are_those_of_the_oracle_however_the_batches_are_cut(seed, classes, more, batch_size):
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, more)])  # no class is absent
    logits = (3 * random.standard_normal((len(labels), classes))).astype(np.float32)
    sums = Evaluation(classes, CPU)
    for part in torch.arange(len(labels)).split(batch_size):
        sums.add(torch.from_numpy(logits)[part], torch.from_numpy(labels)[part])
    result, expected = sums.result(), oracle(logits.astype(np.float64), labels)
    assert result.keys() >= expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-5), name


def test_a_sure_and_right_model_is_calibrated_and_a_sure_and_wrong_one_is_not():
    labels = torch.arange(4)
    for guess, error in ((labels, 0.0), ((labels + 1) % 4, 1.0)):
        sums = Evaluation(4, CPU)
        sums.add(1000 * torch.nn.functional.one_hot(guess, 4).bfloat16(), labels)
        assert sums.result()["calibration_error"] == pytest.approx(error)
        assert sums.result()["top5"] == 1.0  # four classes: all of them are among the first five


def test_the_sums_of_all_processes_are_those_of_one():
    logits, labels = torch.randn(30, 6), torch.randint(0, 6, (30,))
    labels[:6] = torch.arange(6)
    whole, *ranks = (Evaluation(6, CPU) for _ in range(4))
    whole.add(logits, labels)
    for rank, sums in enumerate(ranks):
        sums.add(logits[rank::3], labels[rank::3])
    reduced = iter([sum(getattr(r, name) for r in ranks) for name in ("totals", "classes", "bins")])
    together = SimpleNamespace(num_processes=3, reduce=lambda x, how: next(reduced))
    result = ranks[0].result(together)
    for name, value in whole.result().items():
        assert result[name] == pytest.approx(value), name


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        Evaluation(3, CPU).result()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("everywhere", [True, False])
def test_logits_that_are_not_finite_are_reported_as_such(wrong, everywhere):
    logits, sums = torch.randn(6, 3), Evaluation(3, CPU)
    logits[4 if not everywhere else slice(None), 1] = wrong
    sums.add(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
    sums.add(torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(FloatingPointError, match=rf"logits are not finite .* {6 if everywhere else 1} of 8"):
        sums.result()


def test_a_class_without_samples_has_no_accuracy_and_the_result_is_json():
    sums = Evaluation(3, CPU)
    sums.add(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
    per_class = sums.result()["per_class"]
    json.dumps(sums.result(), allow_nan=False)
    assert per_class[2] is None
    assert None not in per_class[:2]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 10**9), st.sampled_from([torch.float32, torch.half]))
def test_a_batch_on_a_cpu_holds_so_many_bytes(height, width, weights, dtype):
    network = nn.Module()
    network.weight = nn.Parameter(torch.empty(weights, device="meta"))
    batch = batch_for(network, (height, width), torch.device("cpu"), dtype)
    assert batch in {8, 16, 32, 64, 128, 256, 512}
    pixels = max(BYTES // dtype.itemsize, weights // 32)
    assert batch == 8 or batch * height * width <= pixels
    assert batch == MOST or 2 * batch * height * width > pixels
    assert batch_for(network, (height, width), torch.device("cuda"), dtype) == MOST


@pytest.mark.parametrize(("dtype", "images"), [(torch.float32, 64), (torch.bfloat16, 128)])
def test_small_networks_at_32_px_are_shown_so_many_images_on_a_cpu(dtype, images):
    assert batch_for(nn.Conv2d(3, 16, 3), (32, 32), torch.device("cpu"), dtype) == images
