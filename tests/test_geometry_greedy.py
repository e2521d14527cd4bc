"""Greedy choices against naive ones in float64 that hold all N×N distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune.geometry.d2 import d2_select, spread
from kdprune.geometry.facility_location import facility_location
from kdprune.geometry.herding import herding
from kdprune.geometry.kcenter import _Bounds, kcenter
from kdprune.geometry.neighbours import neighbours
from kdprune.geometry.rows import rank


def cloud(n: int = 300, d: int = 6, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=g) * torch.rand(d, dtype=torch.float64, generator=g)


def grid(n: int, d: int = 2, values: int = 3) -> torch.Tensor:
    """Whole numbers: many equal rows, and many equal distances."""
    return torch.randint(values, (n, d), generator=torch.Generator().manual_seed(n + d)).double()


def shuffled(x: torch.Tensor, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[ids], ids


def distances(x: torch.Tensor) -> torch.Tensor:
    return (x[:, None] - x[None]).square().sum(-1).sqrt()


def ranks(n: int, purpose: str) -> list[int]:
    return rank(torch.arange(n), 0, purpose).tolist()


def first_of(value: torch.Tensor, place: list[int], free: set[int]) -> int:
    """The free row of largest value, of those that tie the one of lowest place."""
    most = max(float(value[i]) for i in free)
    return min((i for i in free if float(value[i]) >= most - 1e-9), key=place.__getitem__)


# --- k-center


def naive_kcenter(x: torch.Tensor, count: int, kept: list[int]) -> tuple[list[int], list[float]]:
    d, place = distances(x), ranks(len(x), "kcenter")
    free, chosen, radius = set(range(len(x))) - set(kept), list(kept), []
    while len(chosen) < len(kept) + count:
        value = d[:, chosen].min(1).values if chosen else (x - x.mean(0)).norm(dim=1)
        i = first_of(value**2, place, free)
        radius.append(float(value[i]) if chosen else float("inf"))
        chosen.append(i)
        free.remove(i)
    return chosen[len(kept) :], radius


@pytest.mark.parametrize("pool", [1, 5, 40, 4096])
@pytest.mark.parametrize("kept", [[], [3], [17, 0, 250]])
def test_kcenter_is_the_naive_greedy(pool: int, kept: list[int]):
    x = cloud()
    chosen, radius = naive_kcenter(x, 120, kept)
    found = kcenter(x, 120, kept=kept, pool=pool)
    assert found.chosen.tolist() == chosen
    torch.testing.assert_close(found.radius, torch.tensor(radius, dtype=torch.float64))


@settings(max_examples=60)
@given(n=st.integers(2, 60), d=st.integers(1, 3), pool=st.integers(1, 70), data=st.data())
def test_kcenter_is_the_naive_greedy_where_rows_and_distances_are_equal(n: int, d: int, pool: int, data: st.DataObject):
    kept = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1))
    count = data.draw(st.integers(1, n - len(kept)))
    x = grid(n, d)
    assert kcenter(x, count, kept=kept, pool=pool).chosen.tolist() == naive_kcenter(x, count, kept)[0]


def test_kcenter_keeps_a_running_minimum():
    """A distance to the last centre alone would go back to where the first centre was."""
    x = torch.tensor([[0.0], [0.1], [10.0], [6.0]])
    assert kcenter(x, 3, kept=[0]).chosen.tolist() == [2, 3, 1]


def test_kcenter_in_float32_covers_as_well_and_of_large_sets_too():
    x = cloud(5000, 16)
    exact, single = kcenter(x, 400), kcenter(x.float().numpy(), 400, pool=64)
    torch.testing.assert_close(single.radius.double(), exact.radius, rtol=1e-4, atol=1e-4)
    assert len(single.chosen.unique()) == 400
    for half in (x.half(), x.half().numpy()):
        assert kcenter(half, 10).radius.dtype == torch.float32


def test_kcenter_updates_few_rows():
    """Rows near a centre are left alone: of N·count distances most are never computed."""
    g = torch.Generator().manual_seed(0)
    x = torch.cat([0.01 * torch.randn(20_000, 8, generator=g), 10 * torch.randn(400, 8, generator=g)])
    computed = 0
    original = _Bounds.update

    def counted(self, index):
        nonlocal computed
        computed += int((self.centers - self.known_N[index]).sum())
        original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Bounds, "update", counted)
        kcenter(x, 300, kept=[0], pool=64)
    assert computed < 0.1 * len(x) * 300


def test_kcenter_does_not_depend_on_the_order_of_the_rows():
    for x in (cloud(), grid(300)):
        y, ids = shuffled(x)
        assert torch.equal(ids[kcenter(y, 100, ids=ids).chosen], kcenter(x, 100).chosen)
    assert not torch.equal(kcenter(x, 100, seed=1).chosen, kcenter(x, 100).chosen)


# --- herding


def naive_herding(x: torch.Tensor, count: int, mean: torch.Tensor) -> list[int]:
    place, free, chosen = ranks(len(x), "herding"), set(range(len(x))), []
    total = torch.zeros_like(mean)
    for t in range(count):
        value = -(mean - (total + x) / (t + 1)).square().sum(1) * (t + 1) ** 2
        i = first_of(value, place, free)
        chosen.append(i)
        free.remove(i)
        total = total + x[i]
    return chosen


def test_herding_is_the_literal_argmin():
    x = cloud()
    assert herding(x, 300).tolist() == naive_herding(x, 300, x.mean(0))
    target = x.mean(0) + 0.3
    assert herding(x, 50, target_D=target).tolist() == naive_herding(x, 50, target)


def test_herding_follows_the_mean_and_does_not_flee_it():
    """By argmax, the running mean would stay as far from the mean of all as it can."""
    x = cloud(1000)
    mean, random = x.mean(0), x[:50].mean(0)
    error = [float((x[herding(x, n)].mean(0) - mean).norm()) for n in (1, 5, 50)]
    assert error[0] > error[1] > error[2]
    assert error[2] < 0.1 * float((random - mean).norm())
    assert int(herding(x, 1)) == int((x - mean).norm(dim=1).argmin())
    single = x[herding(x.float(), 50)].mean(0)
    assert float((single - mean).norm()) < 0.1 * float((random - mean).norm())


@settings(max_examples=50)
@given(n=st.integers(1, 40), d=st.integers(1, 3), data=st.data())
def test_herding_is_the_literal_argmin_where_rows_are_equal(n: int, d: int, data: st.DataObject):
    x, count = grid(n, d), data.draw(st.integers(1, n))
    assert herding(x, count).tolist() == naive_herding(x, count, x.mean(0))


def test_herding_does_not_depend_on_the_order_of_the_rows():
    for x in (cloud(), grid(300)):
        y, ids = shuffled(x)
        assert torch.equal(ids[herding(y, 60, ids=ids)], herding(x, 60))
    assert not torch.equal(herding(x, 60, seed=1), herding(x, 60))


# --- facility location


def naive_facility_location(x: torch.Tensor, count: int, metric: str) -> tuple[list[int], list[int], list[float]]:
    unit = torch.nn.functional.normalize(x, dim=1)
    d = distances(x) if metric == "euclidean" else 1 - unit @ unit.T
    similarity = d.max() - d
    place, free, chosen, cost = ranks(len(x), "facility location"), set(range(len(x))), [], []
    best = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(count):
        gain = torch.maximum(similarity, best).sum(1) - best.sum()  # similarity is symmetric
        i = first_of(gain, place, free)
        chosen.append(i)
        free.remove(i)
        best = torch.maximum(best, similarity[i])
        cost.append(float(d[chosen].min(0).values.sum()))
    weight = torch.bincount(d[chosen].argmin(0), minlength=count)
    return chosen, weight.tolist(), cost


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_facility_location_is_the_naive_greedy(metric: str):
    x = cloud(250)
    chosen, weight, cost = naive_facility_location(x, 100, metric)
    found = facility_location(x, 100, metric=metric)
    assert found.chosen.tolist() == chosen
    assert found.weight.tolist() == weight
    assert sum(weight) == 250
    torch.testing.assert_close(found.cost, torch.tensor(cost, dtype=torch.float64))


@settings(max_examples=50)
@given(n=st.integers(1, 40), d=st.integers(1, 3), data=st.data())
def test_facility_location_is_the_naive_greedy_where_rows_are_equal(n: int, d: int, data: st.DataObject):
    x, count = grid(n, d), data.draw(st.integers(1, n))
    chosen, _, cost = naive_facility_location(x, count, "euclidean")
    found = facility_location(x, count)
    assert found.chosen.tolist() == chosen
    assert found.cost.tolist() == pytest.approx(cost, abs=1e-6)
    assert int(found.weight.sum()) == n


def test_facility_location_in_tiles_is_the_same(monkeypatch: pytest.MonkeyPatch):
    x = cloud(200)
    whole = facility_location(x, 50)
    monkeypatch.setattr("kdprune.geometry.facility_location.TILE", 33)
    monkeypatch.setattr("kdprune.geometry.facility_location.BATCH", 3)
    tiled = facility_location(x, 50)
    assert torch.equal(tiled.chosen, whole.chosen)
    assert torch.equal(tiled.weight, whole.weight)


def test_facility_location_does_not_depend_on_the_order_of_the_rows():
    for x in (cloud(), grid(300)):
        y, ids = shuffled(x)
        assert torch.equal(ids[facility_location(y, 30, ids=ids).chosen], facility_location(x, 30).chosen)
    assert not torch.equal(facility_location(x, 30, seed=1).chosen, facility_location(x, 30).chosen)


# --- D2


def naive_d2(
    score: torch.Tensor, index: torch.Tensor, squared: torch.Tensor, count: int, gammas: tuple[float, float]
) -> list[int]:
    n, k = index.shape
    s = score.double().clone()
    for i in range(n):
        for j in range(k):
            s[i] += np.exp(-gammas[0] * float(squared[i, j])) * float(score[index[i, j]])
    place, free, chosen = ranks(n, "d2"), set(range(n)), []
    for _ in range(count):
        i = first_of(s, place, free)
        chosen.append(i)
        free.remove(i)
        for j in range(k):
            s[index[i, j]] -= np.exp(-gammas[1] * float(squared[i, j])) * float(s[i])
    return chosen


@pytest.mark.parametrize("gammas", [(1.0, 1.0), (0.1, 0.01), (0.0, 0.0)])
@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_d2_is_the_naive_greedy(gammas: tuple[float, float], shift: float):
    x = cloud(150)
    score = torch.rand(150, generator=torch.Generator().manual_seed(1)).double() + shift
    graph = neighbours(x, 5)
    values = spread(score, graph.index_NK, graph.squared_NK, gammas[0])
    found = d2_select(values, graph.index_NK, graph.squared_NK, 150, gamma=gammas[1])
    assert found.tolist() == naive_d2(score, graph.index_NK, graph.squared_NK, 150, gammas)


def test_d2_spends_one_choice_on_copies():
    """Without discounts, the copies of the hardest row would be the next choices."""
    x = torch.cat([torch.zeros(5, 2), 100 * torch.eye(2)])
    score = torch.tensor([1.0, 1, 1, 1, 1, 0.5, 0.4])
    graph = neighbours(x, 4)
    values = spread(score, graph.index_NK, graph.squared_NK)
    assert values.tolist() == pytest.approx([5, 5, 5, 5, 5, 0.5, 0.4])
    found = d2_select(values, graph.index_NK, graph.squared_NK, 3).tolist()
    assert found[0] < 5
    assert found[1:] == [5, 6]


def test_d2_ignores_neighbours_that_are_not_there():
    index, squared = torch.tensor([[1, -1], [0, -1], [-1, -1]]), torch.tensor([[0.0, torch.inf]] * 3)
    score = torch.tensor([2.0, 1.0, 4.0])
    for gamma in (0.0, 1.0):
        assert spread(score, index, squared, gamma).tolist() == [3.0, 3.0, 4.0]
        assert d2_select(score, index, squared, 3, gamma=gamma).tolist() == [2, 0, 1]


def test_d2_ties_are_broken_by_id():
    x, score = grid(200, 2, 20), torch.ones(200)
    y, ids = shuffled(x)
    one, other = (neighbours(rows, 4, ids=i) for rows, i in ((x, None), (y, ids)))
    flat, flat_shuffled = torch.zeros_like(one.index_NK) - 1, torch.zeros_like(other.index_NK) - 1
    chosen = d2_select(score, flat, one.squared_NK, 50)
    assert torch.equal(ids[d2_select(score, flat_shuffled, other.squared_NK, 50, ids=ids)], chosen)
    assert chosen.sort().values.tolist() != list(range(50))
    assert not torch.equal(d2_select(score, flat, one.squared_NK, 50, seed=1), chosen)


# --- refusals


GREEDY = {
    "kcenter": kcenter,
    "herding": herding,
    "facility_location": facility_location,
    "d2": lambda x, count, ids=None: d2_select(
        x[:, 0], torch.zeros(len(x), 1, dtype=torch.int64), torch.ones(len(x), 1), count, ids=ids
    ),
}


@pytest.mark.parametrize("name", GREEDY)
def test_what_cannot_be_is_refused(name: str):
    choose, x = GREEDY[name], torch.rand(20, 3)
    for wrong in (0, 21, -1):
        with pytest.raises(ValueError, match=rf"count: {wrong} given, allowed is 1 to 20"):
            choose(x, wrong)
    with pytest.raises(ValueError, match=r"ids: 7 given twice"):
        choose(x, 3, ids=[7, 7, *range(18)])
    x[13, 0] = float("nan")
    with pytest.raises(ValueError, match=r"row 13"):
        choose(x, 3)
    assert sorted(choose(torch.rand(20, 3), 20).chosen.tolist() if name in ("kcenter", "facility_location") else
                  choose(torch.rand(20, 3), 20).tolist()) == list(range(20))  # fmt: skip


def test_other_mistakes_are_refused():
    x = torch.rand(20, 3)
    with pytest.raises(ValueError, match=r"count: 19 given, allowed is 1 to 18"):
        kcenter(x, 19, kept=[0, 1])
    with pytest.raises(ValueError, match=r"kept: 3 to 20 given, allowed are rows 0 to 19"):
        kcenter(x, 2, kept=[3, 20])
    with pytest.raises(ValueError, match=r"kept: 1 rows given twice"):
        kcenter(x, 2, kept=[3, 3])
    with pytest.raises(ValueError, match=r"'cosin'.*did you mean 'cosine'"):
        facility_location(x, 2, metric="cosin")
    index, squared = torch.zeros(20, 1, dtype=torch.int64), torch.ones(20, 1)
    with pytest.raises(ValueError, match=r"gamma: -1"):
        spread(x[:, 0], index, squared, -1.0)
    with pytest.raises(ValueError, match=r"scores: 19 given"):
        spread(x[1:, 0], index, squared)
