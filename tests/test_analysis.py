"""Analyses of scores and runs: each formula beside a slow restatement of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import config_of, restored_surroundings
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdprune.analysis.classes import compare
from kdprune.analysis.indicator import above_threshold, aum_with_indicator, threshold_samples
from kdprune.analysis.interpolation import barriers, error_barrier, interpolated, with_fresh_statistics
from kdprune.analysis.noise import beyond, detection, flip_labels, hardest_share
from kdprune.analysis.ntk import ntk_gram, slices, velocity
from kdprune.analysis.ranks import by_difficulty, parts_of, window_starts
from kdprune.analysis.velocity import _check_cost
from kdprune.config import DataConfig
from kdprune.data.dataset import open_data
from kdprune.data.relabelled import with_labels
from kdprune.data.scores import Scores
from kdprune.pipeline.session import Session

PRINT = "f" * 64


def scores_of(values, hard="high", labels=None) -> Scores:
    values = np.array(values, dtype=np.float32)
    labels = np.arange(len(values)) % 3 if labels is None else labels
    return Scores(values, labels, PRINT, "some", hard, ("a", "b", "c"))


@pytest.fixture(scope="module")
def data():
    with restored_surroundings():
        return open_data(DataConfig(), progress=False)


# --- labels -----------------------------------------------------------------------------------------------------------


def test_the_fingerprint_sees_labels_and_nothing_else_changes(data):
    labels = data.train.labels
    same = with_labels(data, labels.copy(), data.classes)
    assert (same.fingerprint, same.test_fingerprint) == (data.fingerprint, data.test_fingerprint)
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 10
    other = with_labels(data, changed, data.classes)
    assert other.fingerprint != data.fingerprint
    assert other.test_fingerprint == data.test_fingerprint
    assert other.train.images is data.train.images
    assert np.array_equal(np.asarray(other.train.source[7]), np.asarray(data.train.source[7]))
    assert other.train.source.describe(7) == data.train.source.describe(7)
    more = with_labels(data, labels, [*data.classes, "more"])
    assert more.num_classes == 11
    assert more.test.classes == more.classes
    assert more.fingerprint != data.fingerprint
    with pytest.raises(ValueError, match="3 labels given for 1,347"):
        with_labels(data, labels[:3], data.classes)
    with pytest.raises(ValueError, match="label 11"):
        with_labels(data, np.full_like(labels, 11), data.classes)


@given(st.integers(2, 12), st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.integers(0, 99))
def test_flipped_labels_are_so_many_others_and_nest(classes, share, other, seed):
    labels = np.arange(200) * 7 % classes
    labels[::10] = -1
    flipped = flip_labels(labels, share, classes, seed)
    moved = flipped != labels
    assert moved.sum() == round(share * 180)
    assert not moved[::10].any()
    assert ((flipped >= 0) == (labels >= 0)).all()
    assert flipped.max() < classes
    again = flip_labels(labels, other, classes, seed)
    fewer, more = sorted([flipped, again], key=lambda y: (y != labels).sum())
    assert (more[fewer != labels] == fewer[fewer != labels]).all()


def test_labels_flip_to_all_other_classes_alike():
    labels = np.zeros(30_000, dtype=np.int64)
    counts = np.bincount(flip_labels(labels, 0.9, 10), minlength=10)[1:]
    assert abs(counts / 27_000 - 1 / 9).max() < 0.01
    for share in (0, 1, -1, 1e-9, math.nan):
        with pytest.raises(ValueError, match="--planted"):
            flip_labels(labels, share, 10)


def test_suspects_are_on_the_hard_side_of_either_direction():
    values = [0.1, 0.9, math.nan, 0.5, math.inf, 0.2]
    high, low = hardest_share(scores_of(values), 0.4), hardest_share(scores_of(values, "low"), 0.4)
    assert (high.ids.tolist(), high.threshold) == ([4, 1], pytest.approx(0.9))
    assert (low.ids.tolist(), low.threshold) == ([0, 5], pytest.approx(0.2))
    assert beyond(scores_of([1, 0, -1, math.nan], "low"), 0.0).ids.tolist() == [2, 1]
    none = beyond(scores_of([1, 2], "low"), 0.0)
    assert (none.ids.tolist(), none.threshold) == ([], 0)
    assert beyond(scores_of([1, 2, math.nan]), 2).ids.tolist() == [1]
    for share in (0, 1, 0.01):
        with pytest.raises(ValueError, match="--share"):
            hardest_share(scores_of(values), share)


def test_equal_scores_are_not_flagged_by_their_ids():
    chosen = hardest_share(scores_of([1.0] * 1000), 0.5).flagged
    assert 0.4 < chosen[:500].mean() < 0.6


def slow_auroc(difficulty, wrong) -> float:
    """The probability that a wrong one is harder than a right one, ties half: all pairs."""
    pairs = [(h, r) for h, w in zip(difficulty, wrong, strict=True) if w
             for r, v in zip(difficulty, wrong, strict=True) if not v]  # fmt: skip
    return sum(1.0 if h > r else 0.5 if h == r else 0.0 for h, r in pairs) / len(pairs)


def slow_average_precision(difficulty, wrong) -> float:
    """Σ (recall step) · precision over thresholds, Python's floats."""
    total, before = sum(wrong), 0.0
    result = 0.0
    for threshold in sorted(set(difficulty), reverse=True):
        flagged = [w for d, w in zip(difficulty, wrong, strict=True) if d >= threshold]
        recall = sum(flagged) / total
        result += (recall - before) * sum(flagged) / len(flagged)
        before = recall
    return result


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan]), st.booleans()),
                min_size=4, max_size=40), st.sampled_from(["high", "low"]))  # fmt: skip
def test_detection_is_what_counting_gives(pairs, hard):
    values, wrong = (np.array(column) for column in zip(*pairs, strict=True))
    scores = scores_of(values, hard)
    seen = ~np.isnan(values)
    if wrong[seen].all() or not wrong[seen].any() or seen.sum() < 4:
        return
    found = hardest_share(scores, 0.5)
    result = detection(found, wrong)
    difficulty = (values if hard == "high" else -values)[seen].tolist()
    assert result["auroc"] == pytest.approx(slow_auroc(difficulty, wrong[seen]))
    assert result["average_precision"] == pytest.approx(slow_average_precision(difficulty, wrong[seen].tolist()))
    hit = sum(bool(w and f) for w, f in zip(wrong, found.flagged, strict=True))
    assert result["found"] == hit
    assert result["precision"] == pytest.approx(hit / round(0.5 * seen.sum()))
    assert result["recall"] == pytest.approx(hit / wrong[seen].sum())


def test_detection_needs_both_kinds():
    for wrong in (np.zeros(4, bool), np.ones(4, bool)):
        with pytest.raises(ValueError, match="nothing to tell apart"):
            detection(hardest_share(scores_of([1, 2, 3, 4]), 0.5), wrong)


# --- AUM with its indicator class -------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(31, 400), st.integers(0, 9))
def test_threshold_samples_are_as_many_as_a_class_and_never_the_same(classes, total, seed):
    ids = np.arange(total) * 3
    first, second = threshold_samples(ids, classes, seed)
    assert len(first) == len(second) == total // (classes + 1)
    assert len(np.unique([first, second])) == 2 * len(first)
    assert set(first) | set(second) <= set(ids)


def test_the_threshold_is_the_99th_percentile_of_threshold_samples():
    aum = np.arange(1000, dtype=np.float32)
    above = above_threshold(aum, np.arange(100, 300))
    assert above[297] == 0  # 198 of the 200 threshold samples are not above it
    assert (above <= 0).sum() == 298


def test_each_sample_is_judged_in_a_round_in_which_it_kept_its_label(data, tmp_path):
    seen = []

    def scored(config, session) -> Scores:
        """An AUM that says in which round it was measured, and of threshold samples that they were some."""
        labels = session.data.train.labels
        seen.append(labels)
        is_threshold = labels == 10
        assert session.data.num_classes == 11
        values = np.where(is_threshold, -5.0, 100.0 * len(seen)).astype(np.float32)
        return Scores(values, labels, session.data.fingerprint, "aum", "low")

    from accelerate import Accelerator

    session = Session(data, Accelerator(cpu=True))
    scores = aum_with_indicator(config_of(tmp_path), session, scored)
    assert [(labels == 10).sum() for labels in seen] == [1347 // 11] * 2
    assert not ((seen[0] == 10) & (seen[1] == 10)).any()
    for labels in seen:
        assert (labels[labels != 10] == data.train.labels[labels != 10]).all()
    assert np.array_equal(scores.values, np.where(seen[0] == 10, 205.0, 105.0))  # less the threshold, −5
    assert (scores.fingerprint, scores.hard) == (data.fingerprint, "low")


# --- order ------------------------------------------------------------------------------------------------------------


def test_windows_and_parts_go_from_easy_to_hard():
    values = [3.0, math.nan, 1.0, 2.0, -math.inf]
    assert by_difficulty(scores_of(values)).tolist() == [4, 2, 3, 0]
    assert by_difficulty(scores_of(values, "low")).tolist() == [0, 3, 2, 4]
    ties = by_difficulty(scores_of([0.0] * 100))
    assert sorted(ties) == list(range(100))
    assert ties.tolist() != list(range(100))
    assert window_starts(100, 20, 5).tolist() == [0, 20, 40, 60, 80]
    assert window_starts(20, 20, 5).tolist() == [0]
    assert [len(part) for part in parts_of(np.arange(11), 3)] == [4, 4, 3]
    with pytest.raises(ValueError, match="--size: 21 given, allowed are 1 to 20"):
        window_starts(20, 21, 5)
    with pytest.raises(ValueError, match="--windows"):
        window_starts(20, 2, 0)
    with pytest.raises(ValueError, match="--parts: 12"):
        parts_of(np.arange(11), 12)


# --- kernel -----------------------------------------------------------------------------------------------------------


def tiny_network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4)
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def slow_gram(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One backward pass for each logit of each sample, in float64."""
    model = model.double()
    rows = []
    for image in images.double():
        logits = model(image[None])[0]
        for logit in logits:
            gradients = torch.autograd.grad(
                logit, [p for p in model.parameters() if p.requires_grad], retain_graph=True
            )
            rows.append(torch.cat([g.flatten() for g in gradients]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


@pytest.mark.parametrize("memory", [2**30, 4 * 20 * 30, 1])
def test_the_kernel_is_that_of_single_backward_passes(memory):
    model, images = tiny_network(), torch.randn(5, 1, 4, 4)
    model[0].bias.requires_grad_(False)
    gram = ntk_gram(model, images, memory, chunk=2)
    assert gram.shape == (20, 20)
    torch.testing.assert_close(gram, slow_gram(model, images), rtol=1e-5, atol=1e-5)


def test_a_kernel_needs_evaluation_mode_and_parameters():
    with pytest.raises(ValueError, match="training mode"):
        ntk_gram(tiny_network().train(), torch.randn(2, 1, 4, 4))
    with pytest.raises(ValueError, match="no parameter"):
        ntk_gram(tiny_network().requires_grad_(False), torch.randn(2, 1, 4, 4))


def test_kernels_that_fill_the_memory_are_refused():
    _check_cost(1, 100, 10)
    with pytest.raises(ValueError, match=r"--size: 100 given.*1,000 classes.*allowed are 1 to 32"):
        _check_cost(1, 100, 1000)
    _check_cost(1, 32, 1000)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 20))
def test_slices_hold_each_tensor_once_and_fit(sizes, most):
    named = {str(index): size for index, size in enumerate(sizes)}
    groups = list(slices(named, most))
    assert [name for group in groups for name in group] == list(named)
    assert all(len(group) == 1 or sum(named[name] for name in group) <= most for group in groups)


def test_velocity_is_a_cosine_distance():
    a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double()
    assert velocity(a, b) == pytest.approx(1 - 14 / math.sqrt(15 * 17))
    assert velocity(a, 7 * a) == pytest.approx(0, abs=1e-12)
    assert velocity(torch.diag(torch.tensor([1.0, 0])), torch.diag(torch.tensor([0, 1.0]))) == 1
    for wrong in (a[:1], 0 * a):
        with pytest.raises(ValueError, match="kernel"):
            velocity(a, wrong)


# --- barrier ----------------------------------------------------------------------------------------------------------


def test_the_barrier_is_above_the_chord():
    alphas = np.linspace(0, 1, 5)
    errors = np.array([0.1, 0.2, 0.6, 0.4, 0.3])
    assert error_barrier(errors, alphas) == pytest.approx(0.6 - 0.2)
    assert error_barrier(np.array([0.1, 0.0, 0.0, 0.0, 0.3]), alphas) == 0
    assert error_barrier(alphas * 0.7 + 0.1, alphas) == pytest.approx(0)
    wrong = np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)
    assert barriers(wrong, np.linspace(0, 1, 3), [np.array([0]), np.array([1]), np.arange(2)]) == [1.0, 0.5, 0.75]
    with pytest.raises(ValueError, match="from 0 to 1"):
        error_barrier(errors[:4], alphas[:4])


def test_interpolation_is_linear_and_statistics_are_measured():
    first, second = tiny_network(), tiny_network()
    with torch.no_grad():
        second[0].weight.normal_()
    second[1].num_batches_tracked += 5
    states = first.state_dict(), second.state_dict()
    middle = interpolated(*states, 0.25)
    torch.testing.assert_close(middle["0.weight"], 0.25 * states[0]["0.weight"] + 0.75 * states[1]["0.weight"])
    assert middle["1.num_batches_tracked"] == states[0]["1.num_batches_tracked"]
    for alpha, state in ((1.0, states[0]), (0.0, states[1])):
        assert torch.equal(interpolated(*states, alpha)["0.weight"], state["0.weight"])
    inputs = torch.randn(12, 1, 4, 4)
    model = with_fresh_statistics(first, iter(inputs.split(6)), torch.device("cpu"))
    assert not model.training
    maps = torch.stack([model[0](part).mean((0, 2, 3)) for part in inputs.split(6)])
    torch.testing.assert_close(model[1].running_mean, maps.mean(0).detach())


# --- classes ----------------------------------------------------------------------------------------------------------


def test_the_effect_on_classes():
    full, pruned = [0.9, 0.8, None, 0.7], [0.5, 0.7, 0.2, 0.7]
    size, kept = np.array([10, 20, 30, 40]), np.array([1, 10, 30, 36])
    effect = compare(Path("run"), ["a", "b", "c", "d"], size, kept, (full, pruned))
    assert [row["class"] for row in effect.rows] == ["a", "b", "d"]
    assert [row["kept_share"] for row in effect.rows] == [0.1, 0.5, 0.9]
    assert effect.pearson == pytest.approx(np.corrcoef([0.1, 0.5, 0.9], [-0.4, -0.1, 0.0])[0, 1])
    assert effect.spearman == pytest.approx(1)
    assert effect.worst == (0.7, 0.5)
    same = compare(Path("run"), ["a", "b"], size[:2], size[:2], (full[:2], pruned[:2]))
    assert math.isnan(same.pearson)
    with pytest.raises(ValueError, match="no class"):
        compare(Path("run"), ["a"], size[:1], kept[:1], ([None], [0.5]))
