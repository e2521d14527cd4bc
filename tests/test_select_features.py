"""Greedy selectors on features: what they keep of clusters whose answer is known."""

import logging

import numpy as np
import pytest

from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select

PRINT = "f" * 64
CENTRES = np.array([[0, 0], [30, 0], [0, 30], [30, 30]], dtype=np.float32)


@pytest.fixture
def clusters():
    """Four tight clusters, one of them with most of the samples, of two classes."""
    numbers = np.random.default_rng(0)
    of = np.repeat([0, 1, 2, 3], [170, 10, 10, 10])
    features = CENTRES[of] + numbers.normal(scale=0.1, size=(200, 2)).astype(np.float32)
    scores = numbers.random(200)
    return Samples(of % 2, PRINT, ["a", "b"], features=features, scores=scores), of


@pytest.mark.parametrize("selector", ["kcenter", "facility_location", "facility_location(metric='euclidean')"])
def test_every_cluster_is_covered_first(clusters, selector):
    samples, of = clusters
    assert sorted(of[select(samples, 4 / 200, selector).ids]) == [0, 1, 2, 3]


def test_herding_follows_the_mean(clusters):
    """The trap: argmax, which keeps what pulls the mean away."""
    samples, _ = clusters
    mean = samples.features.mean(0)
    kept = samples.features[select(samples, 0.1, "herding").ids].mean(0)
    random = [np.linalg.norm(samples.features[select(samples, 0.1, seed=s).ids].mean(0) - mean) for s in range(20)]
    assert np.linalg.norm(kept - mean) < min(random)


def test_d2_keeps_hard_samples_that_are_no_neighbours(clusters):
    samples, of = clusters
    features, scores = samples.features.copy(), np.zeros(200)
    features[:20] = -5 + features[:20] / 100
    scores[:20] = 10 + np.arange(20) / 100  # the hardest are all in one place
    scores[[170, 180, 190]] = 9
    samples = Samples(samples.labels, PRINT, samples.classes, features=features, scores=scores)
    assert set(of[select(samples, 4 / 200, "hardest").ids]) == {0}
    assert len(set(of[select(samples, 4 / 200, "d2(neighbours=19, spread_gamma=1000.0)").ids])) == 4


def test_d2_takes_any_scores(clusters):
    samples, _ = clusters
    some = np.r_[np.inf, -np.inf, range(198)]
    for scores, hard in ((np.full(200, np.inf), "high"), (-np.arange(200.0), "low"), (some, "high")):
        given = Samples(samples.labels, PRINT, samples.classes, scores=scores, hard=hard, features=samples.features)
        for balanced in (False, True):
            assert len(select(given, 0.3, "d2", balanced=balanced).ids) == 60


@pytest.mark.parametrize("selector", ["kcenter", "herding", "facility_location", "d2"])
def test_memory_maps_and_half_precision(clusters, selector, tmp_path):
    samples, _ = clusters
    np.save(tmp_path / "features.npy", samples.features.astype(np.float16))
    features = np.load(tmp_path / "features.npy", mmap_mode="r")
    mapped = Samples(samples.labels, PRINT, samples.classes, scores=samples.scores, features=features)
    whole = Samples(samples.labels, PRINT, samples.classes, scores=samples.scores, features=np.array(features))
    assert select(mapped, 0.2, selector, balanced=True).hash == select(whole, 0.2, selector, balanced=True).hash


def test_what_is_refused_and_what_is_warned_of(clusters, monkeypatch):
    samples, _ = clusters
    for wrong, words in (
        ("facility_location(metric='cosin')", "did you mean 'cosine'"), ("d2(neighbours=0)", "whole number of at"),
        ("d2(gamma=-1)", "number in"), ("herding(3)", "takes no parameters"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^--subset\.selector: .*{words}"):
            select(samples, 0.1, wrong)
    with pytest.raises(ValueError, match="kcenter needs features"):
        select(Samples(samples.labels, PRINT), 0.1, "kcenter")
    said = []
    monkeypatch.setattr(logging.getLogger("kdprune"), "warning", lambda text, *args: said.append(text % args))
    monkeypatch.setattr("kdprune.selectors.common.pool.COSTLY", 100)
    select(samples, 0.1, "herding")
    assert "herding compares 200 samples with 20, about 8e+03 multiplications" in said[0]
