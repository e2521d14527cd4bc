"""Every scorer against a literal float64 restatement of its formula; planted answers; the mistakes of others.

The contract that all scorers share is in test_check_scorer.py.

Shapes: N samples, R repeats, E epochs, C classes, M trainings, D features.
"""

import itertools
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune import registry
from kdprune.calls import parse_call
from kdprune.records.rows import About, Column, RowFiles, RowRecord
from kdprune.records.statistics import DERIVED, STATISTICS, derived, statistics
from kdprune.scorers.common import apply, features
from kdprune.scorers.common.apply import compute, declared, score
from kdprune.scorers.common.observation import Observation
from kdprune.testing.simulated import counts_of

N, R, E, C, D = 30, 3, 12, 4, 5


class Values:
    """A record in memory."""

    def __init__(self, values, kind):
        self.values, self.kind = values, kind

    def read(self, name, start, stop):
        array = np.asarray(self.values[name], dtype=np.float32)
        return torch.from_numpy(array[..., start:stop].copy() if self.kind == "dynamics" else array[start:stop].copy())

    def rows(self, name):
        return self.values[name]


def observation(kind, values, labels=None, classes=C, **origin):
    """A record of `kind`, with values by name."""
    if labels is None:
        first = next(iter(values.values()))
        labels = np.zeros(np.shape(first)[-1 if kind == "dynamics" else 0], dtype=np.int64)
    names = tuple(f"class {c}" for c in range(classes))
    record = Values(values, kind)
    return Observation(kind, np.asarray(labels), "print", names, origin, record, record)


def dynamics(**values):
    return observation("dynamics", {name: np.array(value, dtype=np.float32) for name, value in values.items()})


def of(name, values, kind="dynamics", **more):
    """The scores of one statistic that is written by hand; epochs are its last but one dimension."""
    array = np.array(values, dtype=np.float32)
    array = array[None] if kind == "dynamics" and array.ndim == 2 else array
    reads = declared(parse_call(name).name).reads[0]
    return score(name, observation(kind, {reads: array}, **more)).values


# --- the formulas, one sample at a time, in float64 -------------------------------------------------------------------


@pytest.fixture(scope="module")
def training():
    """Predictions of R trainings over E epochs, R×E×N×C, float64, labels, and what is recorded of them."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(C, (N,), generator=generator)
    logits = 2 * torch.randn(R, E, N, C, generator=generator)
    logits[:, torch.arange(E), :, :] += 0.3 * torch.arange(E)[:, None, None] * torch.eye(C)[labels_N]
    recorded = [
        torch.stack([
            statistics(logits[r, e], labels_N, logits[r, e - 1].log_softmax(1) if e else None) for e in range(E)
        ])
        for r in range(R)
    ]  # fmt: skip
    values = {name: torch.stack(recorded)[:, :, i] for i, name in enumerate(STATISTICS)}
    values |= {name: derived(name, values[stored]) for name, stored in DERIVED.items()}
    values = {name: value.numpy() for name, value in values.items()}
    return logits.double().softmax(3).numpy(), logits.double().numpy(), labels_N.numpy(), values


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def std(values):
    values = list(values)
    return math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))


def margin_of(z, y):
    return z[y] - max(z[c] for c in range(len(z)) if c != y)


def one_el2n(p, z, y, epoch=10):
    return math.sqrt(sum((p[epoch - 1][c] - (c == y)) ** 2 for c in range(C)))


def one_forgetting(p, z, y):
    right = [margin_of(z_e, y) > 0 for z_e in z]
    if not any(right):
        return len(right)
    return sum(before and not after for before, after in itertools.pairwise(right))


def one_dyn_unc(p, z, y, window=10):
    p_y = [p_e[y] for p_e in p]
    return mean(std(p_y[k : k + window]) for k in range(len(p) - window + 1))


def one_dual(p, z, y, window=10, epochs=30):
    p_y = [p_e[y] for p_e in p][:epochs]
    windows = [p_y[k : k + window] for k in range(len(p_y) - window + 1)]
    return mean(std(w) * (1 - mean(w)) for w in windows)


def one_tdds(p, z, y, window=10, decay=0.9, epochs=None):
    p = p[:epochs]
    total = 0.0
    for k in range(len(p) - window + 1):
        now = p[k : k + window]
        steps = [
            sum(abs(b * (math.log(b + 1e-8) - math.log(a + 1e-8))) for a, b in zip(now[j], now[j + 1], strict=True))
            for j in range(window - 1)
        ]
        varies = math.sqrt(sum((step - mean(steps)) ** 2 for step in steps))
        total += varies * decay * (1 - decay) ** (len(p) - window - k)
    return total


ORACLES = {
    "el2n": one_el2n,
    "el2n(epoch=1)": lambda p, z, y: one_el2n(p, z, y, 1),
    "el2n(epoch=12)": lambda p, z, y: one_el2n(p, z, y, 12),
    "forgetting": one_forgetting,
    "aum": lambda p, z, y: mean(margin_of(z_e, y) for z_e in z),
    "aum(epochs=4)": lambda p, z, y: mean(margin_of(z_e, y) for z_e in z[:4]),
    "loss": lambda p, z, y: -math.log(p[-1][y]),
    "loss(epoch='mean')": lambda p, z, y: mean(-math.log(p_e[y]) for p_e in p),
    "entropy(epoch=3)": lambda p, z, y: -sum(q * math.log(q) for q in p[2]),
    "entropy(epoch='mean')": lambda p, z, y: mean(-sum(q * math.log(q) for q in p_e) for p_e in p),
    "margin": lambda p, z, y: margin_of(z[-1], y),
    "margin(epoch='mean')": lambda p, z, y: mean(margin_of(z_e, y) for z_e in z),
    "least_confidence": lambda p, z, y: 1 - max(p[-1]),
    "dyn_unc": one_dyn_unc,
    "dyn_unc(window=3)": lambda p, z, y: one_dyn_unc(p, z, y, 3),
    "dual": one_dual,
    "dual(window=4, epochs=9)": lambda p, z, y: one_dual(p, z, y, 4, 9),
    "tdds": one_tdds,
    "tdds(window=4, decay=0.3)": lambda p, z, y: one_tdds(p, z, y, 4, 0.3),
    "tdds(window=3, epochs=7)": lambda p, z, y: one_tdds(p, z, y, 3, 0.9, 7),
}


@pytest.mark.parametrize("text", ORACLES)
def test_scorers_of_dynamics_are_their_formulas_averaged_over_repeats(text, training):
    p, z, labels_N, values = training
    found = score(text, observation("dynamics", values, labels_N))
    expected_N = [mean(ORACLES[text](p[r, :, n], z[r, :, n], labels_N[n]) for r in range(R)) for n in range(N)]
    if text == "forgetting":
        learned = (values["correct"] > 0).any((0, 1))
        assert (found.values[~learned] == np.inf).all()
        expected_N = np.where(learned, expected_N, np.inf)
    np.testing.assert_allclose(found.values, expected_N, rtol=2e-5, atol=1e-6)
    assert found.scorer == text
    assert found.hard == ("low" if text.startswith(("aum", "margin")) else "high")


def test_every_scorer_of_dynamics_has_an_oracle():
    names = {name for name in registry.names("scorers") if declared(name).needs == "dynamics"}
    assert names == {parse_call(text).name for text in ORACLES}


def test_dual_gives_the_mean_probability_of_the_epochs_it_looks_at(training):
    p, _, labels_N, values = training
    found = score("dual(window=4, epochs=9)", observation("dynamics", values, labels_N))
    expected_N = [mean(p[r, e, n, labels_N[n]] for r in range(R) for e in range(9)) for n in range(N)]
    np.testing.assert_allclose(found.extra["mean_probability"], expected_N, rtol=1e-5)


def test_dual_looks_at_the_first_30_epochs_unless_told():
    recorded = dynamics(label_probability=np.random.default_rng(0).random((2, 33, 7)))
    for name in ("score", "mean_probability"):
        usual, written, all_of_them = (
            score(text, recorded).values if name == "score" else score(text, recorded).extra[name]
            for text in ("dual", "dual(epochs=30)", "dual(epochs=33)")
        )
        np.testing.assert_array_equal(usual, written)
        assert (usual != all_of_them).all()


def literal_tdds(probabilities_ENC, window_size, decay):
    """The published procedure as it is written there, array by array (the probabilities already by sample id)."""
    trajectory, k, kept = len(probabilities_ENC), 0, []
    while k < trajectory - window_size + 1:
        window = probabilities_ENC[k : k + window_size]
        divergences = []
        for j in range(window_size - 1):
            log = np.log(window[j + 1] + 1e-8) - np.log(window[j] + 1e-8)
            divergences.append(np.abs(window[j + 1] * log).sum(axis=1))
        divergences = np.array(divergences)
        average = divergences.sum(0) / (window_size - 1)
        norm = np.linalg.norm(np.array([d - average for d in divergences]), axis=0)
        kept.append(norm * decay * (1 - decay) ** (trajectory - window_size - k))
        k += 1
    return sum(np.array(kept), 0)


@pytest.mark.parametrize(("window", "decay"), [(10, 0.9), (5, 0.9), (12, 0.5)])
def test_tdds_is_the_published_procedure(training, window, decay):
    p, _, labels_N, values = training
    one_repeat = {name: value[:1] for name, value in values.items()}
    found = score(f"tdds(window={window}, decay={decay})", observation("dynamics", one_repeat, labels_N))
    np.testing.assert_allclose(found.values, literal_tdds(p[0], window, decay), rtol=2e-5)


# --- planted answers and the mistakes of others -----------------------------------------------------------------------


def test_forgetting_counts_what_was_learned_and_lost():
    #            never  at last  once   twice  always
    correct = [[0, 0, 1, 1, 1],
               [0, 0, 0, 0, 1],
               [0, 0, 0, 1, 1],
               [0, 1, 0, 0, 1]]  # fmt: skip
    assert of("forgetting", correct).tolist() == [np.inf, 0, 1, 2, 0]  # wrong before all training counts as nothing
    assert of("forgetting(never_learned='max')", correct).tolist() == [4, 0, 1, 2, 0]
    assert of("forgetting(never_learned='zero')", correct).tolist() == [0, 0, 1, 2, 0]


def test_forgetting_of_several_repeats():
    never, once, always = [0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]
    correct_REN = np.array([[never, never, once, never], [never, once, always, always]], dtype=float).transpose(0, 2, 1)
    # Learned in one of two repeats: the other counts as many as there are epochs.
    assert of("forgetting", correct_REN).tolist() == [np.inf, 2.5, 0.5, 2]
    assert of("forgetting('max')", correct_REN).tolist() == [4, 2.5, 0.5, 2]
    assert of("forgetting('zero')", correct_REN).tolist() == [0, 0.5, 0.5, 0]


def test_aum_remembers_all_epochs():
    """A peer starts again from 0 in every epoch, which leaves the last one's margin."""
    assert of("aum", [[-9.0, 1.0], [3.0, 2.0]]).tolist() == [-3, 1.5]


def test_windows_move():
    """A peer looks at the first window again and again: what varies later is then invisible."""
    late = np.zeros((15, 2))
    late[-3:, 1] = [1, 0, 1]
    assert of("tdds(window=5)", late)[1] > 0.1
    assert of("dyn_unc(window=5)", late)[1] > 0.05
    assert of("dual(window=5, epochs=15)", late)[1] > 0.02
    assert (of("tdds(window=5)", late)[0], of("dyn_unc(window=5)", late)[0]) == (0, 0)


def test_tdds_weighs_late_windows_more_and_reads_no_step_into_a_window():
    early, late = np.zeros((15, 1)), np.zeros((15, 1))
    early[1:4, 0], late[-3:, 0] = [1, 0, 1], [1, 0, 1]
    assert of("tdds(window=5)", late)[0] > 1e5 * of("tdds(window=5)", early)[0]
    first = np.full((5, 1), 0.5)
    first[0] = np.nan  # there is no prediction before the first
    assert of("tdds(window=5)", first).tolist() == [0]


def test_an_epoch_is_counted_from_one():
    norms = np.arange(1.0, 26)[:, None]  # after epoch e: e
    assert of("el2n(epoch=20)", norms).tolist() == [20]  # a peer takes index 20, the 21st
    assert of("el2n", norms).tolist() == [10]
    assert of("el2n", norms[:4]).tolist() == [4]
    assert of("loss", norms).tolist() == [25]
    assert of("loss(epoch=1)", norms).tolist() == [1]


def trained_with_mislabelled(samples=200, noise=0.1, epochs=15, classes=5):
    """The dynamics of a softmax regression on blobs, some of whose labels are wrong: recorded values, and which."""
    numbers = np.random.default_rng(0)
    truth_N = numbers.integers(classes, size=samples)
    x_ND = torch.from_numpy(2.5 * np.eye(classes)[truth_N] + 0.5 * numbers.normal(size=(samples, classes)))
    wrong_N = numbers.random(samples) < noise
    labels_N = torch.from_numpy(np.where(wrong_N, (truth_N + 1) % classes, truth_N))
    weight = torch.zeros(classes, classes, dtype=torch.float64)
    rows, previous = [], None
    for _ in range(epochs):
        p_NC = (x_ND @ weight).softmax(1)
        weight -= 2 * x_ND.T @ (p_NC - torch.eye(classes)[labels_N]) / samples
        rows.append(statistics(x_ND @ weight, labels_N, previous))
        previous = (x_ND @ weight).log_softmax(1)
    values = {name: torch.stack(rows)[None, :, i] for i, name in enumerate(STATISTICS)}
    values |= {name: derived(name, values[stored]) for name, stored in DERIVED.items()}
    return observation(
        "dynamics", {name: v.half().float().numpy() for name, v in values.items()}, labels_N.numpy()
    ), wrong_N


@pytest.mark.parametrize("text", ["el2n", "aum", "loss", "margin", "loss(epoch='mean')", "forgetting"])
def test_mislabelled_samples_are_the_hardest(text):
    record, wrong_N = trained_with_mislabelled()
    found = score(text, record)
    hardest = np.argsort(-found.difficulty, kind="stable")[: wrong_N.sum()]
    assert wrong_N[hardest].mean() > 0.9


@pytest.mark.parametrize("text", ["entropy", "least_confidence", "loss", "el2n", "margin", "dyn_unc", "dual"])
def test_what_is_undecided_is_harder_than_what_is_sure(text):
    """A peer keeps what a model is surest of where it wants the uncertain."""
    sure, wavering = torch.full((12, 1), 6.0), torch.tensor([0.5, -0.5, 2.0] * 4)[:, None]
    z_EN = torch.cat([sure, wavering], 1)
    rows = [statistics(torch.stack([z, torch.zeros(2)], 1), torch.zeros(2, dtype=torch.int64)) for z in z_EN]
    values = {name: torch.stack(rows)[None, :, i] for i, name in enumerate(STATISTICS)}
    values |= {name: derived(name, values[stored]) for name, stored in DERIVED.items()}
    difficulty_N = score(text, observation("dynamics", {n: v.numpy() for n, v in values.items()})).difficulty
    assert difficulty_N[1] > difficulty_N[0]


@pytest.mark.parametrize("name", [n for n in registry.names("scorers") if declared(n).needs == "dynamics"])
def test_an_epoch_that_was_not_observed_is_no_number(name):
    """Where a scorer looks at it: NaN is not 0, not wrong, and not the least."""
    numbers = np.random.default_rng(0)
    values = {n: numbers.random((2, 12, 3)).astype(np.float32) for n in declared(name).reads}
    for value in values.values():
        value[1, 9, 0] = value[:, :, 1] = np.nan
    text = f"{name}(epoch='mean')" if name in ("loss", "entropy", "margin", "least_confidence") else name
    found = score(text, observation("dynamics", values)).values
    assert np.isnan(found).tolist() == [True, True, False]


def test_a_score_that_is_nan_for_no_reason_is_refused(monkeypatch):
    values = np.array([[[np.inf, 1.0, np.nan]], [[-np.inf, 1.0, np.nan]]])
    with pytest.raises(ValueError, match=r"^--subset.scorer: aum: the score of 1 sample is NaN.*: 0$"):
        score("aum", observation("dynamics", {"margin": values}))


# --- gradients, memorization, a teacher -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grand", "grand_last_layer"])
def test_grand_is_the_mean_over_repeats(name):
    found = of(name, [[1.0, 3.0], [0.5, 0.5], [np.nan, np.nan]], "gradients")
    np.testing.assert_array_equal(found, [2, 0.5, np.nan])


def test_grand_at_initialisation_warns(caplog):
    norms = {"gradient_norm": np.ones((3, 1))}
    with caplog.at_level(logging.WARNING, "kdprune"):
        score("grand", observation("gradients", norms, epoch=5))
        assert not caplog.records
        score("grand", observation("gradients", norms, epoch=0))
    assert "worse than random" in caplog.text


def test_memorization_is_the_difference_of_two_shares():
    numbers = np.random.default_rng(0)
    trained_NM = numbers.random((N, 20)) < 0.7
    trained_NM[:, :2] = True, False
    correct_NM = numbers.random((N, 20)) < np.where(trained_NM, 0.9, 0.3)
    counts = counts_of(correct_NM, trained_NM)
    for count_N in counts.values():
        count_N[4] = np.nan
    found = score("memorization", observation("memorization", counts)).values
    for n in set(range(N)) - {4}:
        inside = [correct_NM[n, m] for m in range(20) if trained_NM[n, m]]
        outside = [correct_NM[n, m] for m in range(20) if not trained_NM[n, m]]
        assert found[n] == pytest.approx(mean(inside) - mean(outside), abs=1e-6)
    assert np.isnan(found[4])


@pytest.mark.parametrize("column", [False, True])
def test_memorization_needs_trainings_with_and_without_each_sample(column):
    trained_NM = np.tile([False, True, True], (5, 1))
    trained_NM[3] = column
    record = observation("memorization", counts_of(np.ones((5, 3), dtype=bool), trained_NM))
    with pytest.raises(ValueError, match=r"part of all 3 trainings or of none, 1 sample \(ids 3\): record more"):
        score("memorization", record)


def test_a_teacher_is_scored_as_recorded(training):
    _, _, labels_N, values = training
    recorded = {name: value[0, -1] for name, value in values.items() if name != "kl"}
    recorded["last_layer_gradient_norm"] = np.arange(float(N))
    record = observation("teacher", recorded, labels_N)
    for name, statistic, hard in [
        ("teacher_el2n", "error_norm", "high"),
        ("teacher_loss", "loss", "high"),
        ("teacher_margin", "margin", "low"),
        ("teacher_entropy", "entropy", "high"),
        ("teacher_confidence", "least_confidence", "high"),
        ("teacher_grand_last_layer", "last_layer_gradient_norm", "high"),
    ]:
        found = score(name, record)
        np.testing.assert_array_equal(found.values, recorded[statistic].astype(np.float32))
        assert found.hard == hard


# --- embeddings -------------------------------------------------------------------------------------------------------


def blobs(samples=120, classes=C, seed=0, spread=0.3):
    """Features in as many directions as there are classes, N×D, and their labels."""
    numbers = np.random.default_rng(seed)
    labels_N = numbers.integers(classes, size=samples)
    features_ND = 4 * np.eye(classes, D)[labels_N] + spread * numbers.normal(size=(samples, D))
    return features_ND.astype(np.float32), labels_N


def embedded(features_ND, labels_N, kind="embeddings", classes=C):
    return observation(kind, {"features": features_ND}, labels_N, classes)


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


@pytest.mark.parametrize(("name", "kind"), [("prototypes", "embeddings"), ("teacher_prototypes", "teacher")])
def test_prototypes_are_far_from_every_cluster(name, kind):
    x_ND, labels_N = blobs()
    x_ND[7] = 4  # between all of them
    found = score(name, embedded(x_ND, np.full(len(x_ND), -1), kind)).values  # no labels
    assert found.argmax() == 7
    units = x_ND.astype(float) / np.linalg.norm(x_ND, axis=1, keepdims=True)
    centroids = [units[(labels_N == c) & (np.arange(len(x_ND)) != 7)].mean(0) for c in range(C)]
    expected = [1 - max(cosine(x, c) for c in centroids) for x in units]
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    np.testing.assert_allclose(np.delete(found, 7), np.delete(expected, 7), atol=1e-2)  # 7 moves its centroid


def test_prototypes_have_as_many_clusters_as_classes_unless_told():
    x_ND, labels_N = blobs()
    as_classes = score("prototypes", embedded(x_ND, labels_N)).values
    np.testing.assert_array_equal(as_classes, score("prototypes(clusters=4)", embedded(x_ND, labels_N)).values)
    assert as_classes.mean() > score("prototypes", embedded(x_ND, labels_N, classes=0)).values.mean()  # 100


@pytest.mark.parametrize("name", ["supervised_prototypes", "teacher_supervised_prototypes", "moderate"])
def test_distances_to_the_centre_of_the_class(name):
    x_ND, labels_N = blobs(seed=1)
    found = score(name, embedded(x_ND, labels_N, "teacher" if name.startswith("teacher") else "embeddings")).values
    for n in range(len(x_ND)):
        members = x_ND[labels_N == labels_N[n]].astype(float)
        centre = np.median(members, 0) if name == "moderate" else members.mean(0)
        assert found[n] == pytest.approx(math.sqrt(((x_ND[n] - centre) ** 2).sum()), rel=1e-5)


def test_copies_are_at_the_bottom_of_semdedup():
    x_ND, labels_N = blobs()
    x_ND[40:60] = 3 * x_ND[:20]  # copies, but for their length
    found = score("semdedup(clusters=4)", embedded(x_ND, labels_N)).values
    lowest = set(np.argsort(found)[:20].tolist())
    assert all((n in lowest) != (n + 40 in lowest) for n in range(20))  # one of each pair
    assert found[list(lowest)].max() < 1e-5 < np.sort(found)[20]
    assert (found == 2).sum() == 4  # the first of each cluster


def places(found):
    """The order of choice from scores, and how many were chosen."""
    chosen = np.flatnonzero(found > 0)
    return chosen[np.argsort(-found[chosen], kind="stable")]


def test_kcenter_takes_the_farthest_again_and_again():
    x_ND, labels_N = blobs(60)
    found = score("kcenter(keep_fraction=0.25)", embedded(x_ND, labels_N)).values
    order = places(found)
    assert len(order) == 15
    np.testing.assert_allclose(found[order], np.arange(15, 0, -1) / 15)
    x = x_ND.astype(float)
    for place in range(1, 15):
        nearest = np.linalg.norm(x[:, None] - x[order[:place]], axis=2).min(1)
        assert nearest[order[place]] == pytest.approx(nearest.max(), rel=1e-5)


def test_herding_follows_the_mean_of_each_class():
    """Welling's argmin; a peer's argmax takes the worst each time."""
    x_ND, labels_N = blobs(60)
    found = score("herding(keep_fraction=0.3)", embedded(x_ND, labels_N)).values
    for c in range(C):
        members = np.flatnonzero(labels_N == c)
        order, mu = members[places(found[members])], x_ND[members].astype(float).mean(0)
        assert len(order) == math.ceil(0.3 * len(members))
        total = np.zeros(D)
        for place, chosen in enumerate(order):
            free = np.setdiff1d(members, order[:place])
            errors = np.linalg.norm(mu - (total + x_ND[free]) / (place + 1), axis=1)
            assert errors[free == chosen][0] == pytest.approx(errors.min(), rel=1e-5)
            total += x_ND[chosen]


def test_facility_location_takes_what_brings_the_others_nearest():
    x_ND, labels_N = blobs(40)
    found = score("facility_location(keep_fraction=0.3)", embedded(x_ND, labels_N)).values
    for c in range(C):
        members = np.flatnonzero(labels_N == c)
        order = members[places(found[members])]
        distance = np.linalg.norm(x_ND[members][:, None].astype(float) - x_ND[members], axis=2)
        near = np.full(len(members), np.inf)
        for chosen in order:
            costs = np.minimum(near[:, None], distance).sum(0)
            assert costs[members == chosen][0] == pytest.approx(costs.min(), rel=1e-9)
            near = np.minimum(near, distance[:, members == chosen][:, 0])


def literal_d2(x_ND, s_N, k, gamma, count):
    x, n = x_ND.astype(float), len(x_ND)
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    near = [sorted((j for j in range(n) if j != i), key=lambda j: distance[i, j])[:k] for i in range(n)]
    score_N = [s_N[i] + sum(math.exp(-distance[i, j]) * s_N[j] for j in near[i]) for i in range(n)]
    chosen = []
    while len(chosen) < count:
        i = max((j for j in range(n) if j not in chosen), key=lambda j: score_N[j])
        chosen.append(i)
        for j in near[i]:
            score_N[j] -= math.exp(-gamma * distance[i, j]) * score_N[i]
    return chosen


def test_d2_is_its_messages():
    x_ND, labels_N = blobs(50)
    difficulty_N = np.random.default_rng(0).random(50).astype(np.float32)
    record = embedded(x_ND, labels_N)
    found = score("d2(k=4, gamma=0.5, keep_fraction=0.4)", record, difficulty=difficulty_N).values
    assert places(found).tolist() == literal_d2(x_ND, difficulty_N.astype(float), 4, 0.5, 20)
    raised = score("d2(k=4, keep_fraction=0.4)", record, difficulty=difficulty_N + 3).values
    assert places(raised).tolist() == literal_d2(x_ND, difficulty_N.astype(float) + 3, 4, 1, 20)
    shifted = score("d2(k=4, keep_fraction=0.4)", record, difficulty=difficulty_N - 2).values
    assert places(shifted).tolist() == literal_d2(x_ND, difficulty_N.astype(float) - difficulty_N.min(), 4, 1, 20)


def test_d2_starts_from_finite_scores():
    x_ND, labels_N = blobs(20)
    with pytest.raises(ValueError, match="starts from the scores of another scorer: give a file with --scores"):
        score("d2", embedded(x_ND, labels_N))
    difficulty_N = np.ones(20, dtype=np.float32)
    with pytest.raises(ValueError, match="19 scores given for 20 samples"):
        score("d2", embedded(x_ND, labels_N), difficulty=difficulty_N[:19])
    difficulty_N[3], difficulty_N[5] = np.inf, np.nan
    with pytest.raises(ValueError, match=r"1 of the scores .* \(ids 3\).*never_learned='max'"):
        score("d2", embedded(x_ND, labels_N), difficulty=difficulty_N)
    difficulty_N[3] = 1
    assert np.flatnonzero(np.isnan(score("d2", embedded(x_ND, labels_N), difficulty=difficulty_N).values)) == [5]


def test_d2_looks_for_neighbours_in_clusters_where_there_are_many(monkeypatch):
    module = registry.get("scorers", "d2").__globals__
    x_ND, labels_N = blobs(100)
    exact = score("d2(k=3)", embedded(x_ND, labels_N), difficulty=np.ones(100, dtype=np.float32)).values
    monkeypatch.setitem(module, "EXACT", 50)
    monkeypatch.setitem(module, "PER_CLUSTER", 12)
    near = score("d2(k=3)", embedded(x_ND, labels_N), difficulty=np.ones(100, dtype=np.float32)).values
    assert ((exact > 0) == (near > 0)).mean() > 0.9


@pytest.mark.parametrize("name", [n for n in registry.names("scorers") if "features" in declared(n).reads])
def test_features_may_be_too_many_for_the_memory(monkeypatch, name):
    """Read by slices, a score is the same; what was not observed is left out."""
    x_ND, labels_N = blobs(80)
    x_ND[::9] = np.nan
    record = embedded(x_ND, labels_N, declared(name).needs)
    difficulty_N = np.linspace(0, 1, 80, dtype=np.float32)
    kept = score(name, record, difficulty=difficulty_N).values
    assert np.isnan(kept).tolist() == np.isnan(x_ND).any(1).tolist()
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    monkeypatch.setattr(features, "BLOCK", 11)
    np.testing.assert_allclose(score(name, record, difficulty=difficulty_N).values, kept, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no sample has features"):
        score(name, embedded(np.full((4, D), np.nan), np.zeros(4), declared(name).needs), difficulty=np.ones(4))


def test_features_come_from_shards_of_a_record(tmp_path):
    x_ND, labels_N = blobs(9000)  # more than a shard
    x_ND[[5, 8500]] = np.nan
    about = About("embeddings", 9000, {"features": Column(D, "float16")}, "print", ("a",) * C, {})
    files = RowFiles(tmp_path, about)
    files.create(labels_N)
    for shard in range(about.shards):
        files.write(shard, {"features": x_ND[about.ids(shard)]})
    recorded = Observation("embeddings", labels_N, "print", about.classes, {}, record=RowRecord(tmp_path))
    half_ND = x_ND.astype(np.float16).astype(np.float32)
    for text in ("prototypes", "supervised_prototypes", "kcenter(keep_fraction=0.002)"):
        found = score(text, recorded).values
        np.testing.assert_array_equal(found, score(text, embedded(half_ND, labels_N)).values)
        assert np.flatnonzero(np.isnan(found)).tolist() == [5, 8500]


# --- arguments, records and blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("el2n(epoch=13)", ["epoch: 13 given", "epochs 1 to 12 are recorded"]),
        ("el2n(epoch=0)", ["epoch: 0 given"]),
        ("el2n(epoch=True)", ["epoch: True given"]),
        ("el2n('mean')", ["epoch: 'mean' given"]),
        ("loss(epoch='last')", ["'last' given", "1 to 12 and 'mean'"]),
        ("loss(epoch=1.5)", ["1.5 given"]),
        ("aum(epochs=13)", ["epochs: 13 given, and 12 epochs are recorded"]),
        ("dyn_unc(window=13)", ["window: 13 given for 12 recorded epochs", "2 to 12"]),
        ("dyn_unc(window=1)", ["window: 1 given"]),
        ("dyn_unc(window='a')", ["window: 'a' given"]),
        ("dual(window=5, epochs=4)", ["window: 5 given for 4 recorded epochs"]),
        ("dual(epochs=40)", ["epochs: 40 given"]),
        ("tdds(window=2)", ["window: 2 given", "3 to 12"]),
        ("tdds(epochs=2)", ["at least 3 epochs are needed"]),
        ("tdds(decay=1)", ["decay: 1 given"]),
        ("tdds(decay='a')", ["decay: 'a' given"]),
        ("forgetting(never_learned='maxi')", ["'maxi'; did you mean 'max'", "inf, max, zero"]),
        ("forgeting", ["did you mean 'forgetting'"]),
        ("el2n(epcoh=3)", ["did you mean 'epoch'"]),
        ("grand", ["grand needs a record of gradients, and this one is of dynamics"]),
    ],
)
def test_wrong_arguments_are_explained(training, text, messages):
    _, _, labels_N, values = training
    with pytest.raises(ValueError, match=r"^--subset\.scorer: ") as caught:
        score(text, observation("dynamics", values, labels_N))
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prototypes(clusters=0)", "clusters: 0 given, allowed are 1 to 40"),
        ("prototypes(clusters=41)", "clusters: 41 given"),
        ("semdedup(clusters=1.5)", "clusters: 1.5 given"),
        ("kcenter(keep_fraction=0)", "keep_fraction: 0 given, allowed is above 0, up to 1"),
        ("herding(keep_fraction=1.1)", "keep_fraction: 1.1 given"),
        ("facility_location(keep_fraction='a')", "keep_fraction: 'a' given"),
        ("d2(k=40)", "k: 40 given, allowed are 1 to 39"),
        ("d2(k=0)", "k: 0 given"),
        ("d2(gamma=-1)", "gamma: -1 given"),
        ("d2(keep_fraction=2)", "keep_fraction: 2 given"),
    ],
)
def test_wrong_arguments_of_scorers_of_embeddings(text, message):
    with pytest.raises(ValueError, match=f"^--from: .*{message}"):
        score(text, embedded(*blobs(40)), difficulty=np.ones(40, dtype=np.float32), option="--from")


def test_labels_are_needed_or_not(training):
    _, _, labels_N, values = training
    some = labels_N.copy()
    some[:3] = -1
    with pytest.raises(ValueError, match="el2n needs labels, and there is none for 3 of 30 samples"):
        score("el2n", observation("dynamics", values, some))
    score("entropy", observation("dynamics", values, some))


@pytest.mark.parametrize("text", [*ORACLES, "random"])
def test_blocks_do_not_matter(monkeypatch, training, text):
    _, _, labels_N, values = training
    record = observation("dynamics", values, labels_N)
    whole = score(text, record, seed=5)
    monkeypatch.setattr(apply, "VALUES", 7 if text == "random" else 7 * R * E)
    parts = score(text, record, seed=5)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-5, atol=1e-7)
    assert parts.extra.keys() == whole.extra.keys()
    assert whole.origin["seed"] == (5 if text == "random" else None)


def test_random_scores_are_a_function_of_seed_and_id():
    record = observation("dynamics", {}, np.zeros(1000, dtype=np.int64))
    first, other = (score("random", record, seed=seed).values for seed in (1, 2))
    np.testing.assert_array_equal(first, score("random", record, seed=1).values)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
    ids = np.array([5, 3])
    labels = Observation("nothing", np.zeros(2, dtype=np.int64), "print", (), {})
    function = registry.get("scorers", "random")
    some = compute(function, declared("random"), labels, {}, seed=1, ids=ids)["score"]
    np.testing.assert_array_equal(some, first[ids])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40))
def test_greedy_orders_are_scores(total, chosen):
    order = torch.randperm(total)[: min(chosen, total)]
    found = features.in_order(order, total)
    assert (found > 0).sum() == len(order)
    assert torch.equal(found.argsort(descending=True, stable=True)[: len(order)], order)
