"""Clusters, distances, neighbours and duplicates against slow restatements in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.neighbors import NearestNeighbors

from kdprune.geometry.dedup import earlier_similarity, semdedup
from kdprune.geometry.distances import to_class_mean, to_class_median, to_nearest_centroid
from kdprune.geometry.kmeans import assign, block_sums, kmeans, moved, reduce_sums
from kdprune.geometry.neighbours import neighbours, neighbours_in_clusters
from kdprune.geometry.rows import gather

CPU = torch.device("cpu")


class Shards:
    """Rows in several arrays: sliced, and nothing else."""

    def __init__(self, x: torch.Tensor, size: int, dtype: type = np.float32) -> None:
        self.parts = [part.numpy().astype(dtype) for part in x.split(size)]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: slice) -> np.ndarray:
        assert isinstance(index, slice)
        return np.concatenate(self.parts)[index]


def blobs(
    n: int = 600, d: int = 8, clusters: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn(clusters, d, generator=g, dtype=dtype)
    return centers[torch.randint(clusters, (n,), generator=g)] + torch.randn(n, d, generator=g, dtype=dtype)


def shuffled(x: torch.Tensor, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows in another order, and their ids."""
    ids = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[ids], ids


def squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double()[:, None] - y.double()[None]).square().sum(-1)


def cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(x.double()[:, None], y.double()[None], dim=-1)


# --- k-means


def lloyd(x: torch.Tensor, centroids: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        nearest = squared(x, centroids).argmin(1)
        centroids = torch.stack([x[nearest == k].mean(0) for k in range(len(centroids))])
    return centroids


def test_kmeans_assigns_each_row_to_its_nearest_centroid_and_sums_what_it_says():
    x = blobs(dtype=torch.float32)
    found = kmeans(x, 10)
    distance, cluster = squared(x, found.centroids_KD).min(1)
    assert torch.equal(found.cluster_N, cluster)
    torch.testing.assert_close(found.distance_N.double(), distance, rtol=1e-5, atol=1e-5)
    assert found.inertia == pytest.approx(float(distance.sum()), rel=1e-6)
    assert found.sizes_K.tolist() == torch.bincount(cluster, minlength=10).tolist()


def test_kmeans_ends_in_a_fixed_point_of_lloyds_iteration():
    x = blobs()
    found = kmeans(x, 10, iterations=100, tolerance=0.0)
    torch.testing.assert_close(found.centroids_KD, lloyd(x, found.centroids_KD, 1))
    assert found.iterations < 100


def test_kmeans_is_as_good_as_scikit_learn():
    x = blobs(2000, 16, 20, dtype=torch.float32)
    ours = np.median([kmeans(x, 20, seed=seed).inertia for seed in range(5)])
    theirs = np.median([SklearnKMeans(20, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(5)])
    assert ours <= 1.1 * theirs


def test_spherical_kmeans_measures_cosines_and_knows_no_lengths():
    x = blobs()
    found = kmeans(x, 10, spherical=True)
    cosine, cluster = cosines(x, found.centroids_KD).max(1)
    assert torch.equal(found.cluster_N, cluster)
    torch.testing.assert_close(found.distance_N, 1 - cosine)
    torch.testing.assert_close(found.centroids_KD.norm(dim=1), torch.ones(10, dtype=x.dtype))
    scale = torch.rand(len(x), 1, dtype=x.dtype) + 0.5
    torch.testing.assert_close(kmeans(x * scale, 10, spherical=True).centroids_KD, found.centroids_KD)
    assert found.inertia < kmeans(x, 10, spherical=True, iterations=0).inertia


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans_has_the_same_bits_for_1_2_and_4_workers(spherical: bool):
    x = blobs(3000, dtype=torch.float32)
    one = kmeans(x, 30, block_size=256, spherical=spherical)
    for workers in (2, 4):
        with ThreadPoolExecutor(workers) as pool:
            many = kmeans(x, 30, block_size=256, spherical=spherical, mapper=pool.map)
        assert torch.equal(one.centroids_KD, many.centroids_KD)
        assert torch.equal(one.cluster_N, many.cluster_N)
        assert torch.equal(one.distance_N, many.distance_N)


def test_kmeans_depends_neither_on_threads_nor_blocks_nor_on_the_kind_of_rows():
    x = blobs(3000, dtype=torch.float32).half().float()
    one = kmeans(x, 30)
    torch.set_num_threads(2)
    others = [kmeans(x, 30)]
    torch.set_num_threads(1)
    others += [kmeans(x, 30, block_size=size) for size in (99, 1000, 3000)]
    others += [kmeans(rows, 30) for rows in (x.numpy(), x.half(), Shards(x, 700, np.float16))]
    for other in others:
        torch.testing.assert_close(other.centroids_KD, one.centroids_KD, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other.distance_N, one.distance_N, rtol=1e-5, atol=1e-5)
        assert torch.equal(other.cluster_N, one.cluster_N)


@pytest.mark.parametrize("points", [None, 20])
def test_kmeans_does_not_depend_on_the_order_of_the_rows(points: int | None):
    x = blobs()
    one = kmeans(x, 10, points_per_centroid=points)
    y, ids = shuffled(x)
    other = kmeans(y, 10, points_per_centroid=points, ids=ids)
    torch.testing.assert_close(other.centroids_KD, one.centroids_KD)
    assert torch.equal(other.cluster_N, one.cluster_N[ids])


def test_kmeans_reads_what_is_not_in_its_sample_once():
    """It is trained on a sample, so the iterations do not read the rows."""

    class Counted(Shards):
        read = 0

        def __getitem__(self, index: slice) -> np.ndarray:
            type(self).read += len(range(*index.indices(len(self))))
            return super().__getitem__(index)

    x = blobs(2000)
    kmeans(Counted(x, 500), 5, points_per_centroid=20, iterations=20, tolerance=-1.0)
    assert Counted.read < 4 * len(x)


def test_seeds_start_elsewhere():
    x = blobs()
    assert not torch.equal(kmeans(x, 10, iterations=0).centroids_KD, kmeans(x, 10, iterations=0, seed=1).centroids_KD)


def test_the_start_draws_in_proportion_to_squared_distances():
    """Three far rows among thirty are nearly always found; a uniform draw of two would miss them four times in five."""
    x = torch.cat([torch.randn(27, 4, dtype=torch.float64), 1000 + torch.randn(3, 4, dtype=torch.float64)])
    found = [kmeans(x, 2, iterations=0, seed=seed).centroids_KD for seed in range(20)]
    assert all(c.max() > 500 and c.min() < 500 for c in found)


def test_an_empty_cluster_takes_half_of_the_largest():
    x = torch.cat([torch.randn(90, 3), 50 + torch.randn(10, 3)]).double()
    far = torch.full((1, 3), 1e3, dtype=torch.float64)
    centroids = torch.cat([torch.zeros_like(far), torch.full_like(far, 50), far])
    total, _ = reduce_sums(
        [block_sums(x, (0, 100), centroids_KD=centroids, spherical=False, device=CPU)], centroids, False
    )
    assert total[1].tolist() == [90, 10, 0]
    sizes = assign(x, moved(total, centroids, False)).sizes_K
    assert sizes[1] == 10
    assert sizes.min() > 0


def test_the_inertia_that_stops_is_the_true_one():
    x = blobs()
    for spherical in (False, True):
        found = kmeans(x, 10, spherical=spherical, iterations=3)
        spans = [(0, 100), (100, 600)]
        parts = [
            block_sums(x, span, centroids_KD=found.centroids_KD, spherical=spherical, device=CPU) for span in spans
        ]
        assert reduce_sums(parts, found.centroids_KD, spherical)[1] == pytest.approx(found.inertia)


def test_features_far_from_the_origin_lose_no_digits():
    x = (blobs() + 3000).float()
    centroids = kmeans(x, 10).centroids_KD
    assert torch.equal(assign(x, centroids).cluster_N, squared(x, centroids).argmin(1))


@settings(max_examples=40)
@given(n=st.integers(1, 40), d=st.integers(1, 5), data=st.data())
def test_kmeans_takes_any_k_up_to_n(n: int, d: int, data: st.DataObject):
    k = data.draw(st.integers(1, n))
    x = torch.randint(0, 3, (n, d), generator=torch.Generator().manual_seed(n * d)).float()  # many equal rows
    for spherical in (False, True):
        found = kmeans(x, k, spherical=spherical)
        assert found.centroids_KD.isfinite().all()
        assert int(found.sizes_K.sum()) == n
        if k == n == len(x.unique(dim=0)) and not spherical:
            assert found.inertia == pytest.approx(0, abs=1e-4)


# --- distances


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: x.numpy(), lambda x: Shards(x, 100, np.float64)])
def test_distances_to_the_own_class(wrap):
    x = blobs(301)
    labels = torch.arange(301) % 7
    labels[labels == 3] = 9  # no sample of class 3
    for function, center in ((to_class_mean, np.mean), (to_class_median, np.median)):
        centers = {c: torch.from_numpy(center(x[labels == c].numpy(), axis=0)) for c in labels.unique().tolist()}
        expected = torch.stack([(x[i] - centers[int(labels[i])]).norm() for i in range(301)])
        torch.testing.assert_close(function(wrap(x), labels, block_size=64), expected)


def test_distance_to_the_nearest_centroid_is_that_of_spherical_kmeans():
    x = blobs(dtype=torch.float32)
    found = kmeans(x, 10, spherical=True)
    assert torch.equal(to_nearest_centroid(x, found.centroids_KD), found.distance_N)
    zero = torch.cat([x[:1], torch.zeros(1, 8)])
    assert to_nearest_centroid(zero, found.centroids_KD)[1] == 1  # its cosine with all is 0


# --- neighbours


def test_neighbours_are_scikit_learns():
    x = blobs(500, dtype=torch.float32)
    distance, index = NearestNeighbors(n_neighbors=6).fit(x.double()).kneighbors(x.double())
    for block_size in (64, 333, 4096):
        found = neighbours(x, 5, block_size=block_size)
        assert found.index_NK.tolist() == index[:, 1:].tolist()
        torch.testing.assert_close(found.squared_NK.double(), torch.from_numpy(distance[:, 1:] ** 2), rtol=1e-4, atol=0)


def test_neighbours_in_all_clusters_are_the_exact_ones():
    x = blobs(500)
    clusters = kmeans(x, 9)
    exact = neighbours(x, 5)
    every = neighbours_in_clusters(x, 5, clusters.cluster_N, clusters.centroids_KD, probes=9)
    assert torch.equal(every.index_NK, exact.index_NK)
    torch.testing.assert_close(every.squared_NK, exact.squared_NK)


@pytest.mark.parametrize("probes", [1, 3])
def test_neighbours_in_clusters_are_the_nearest_in_them(probes: int):
    x = blobs(300)
    clusters = kmeans(x, 9)
    found = neighbours_in_clusters(
        Shards(x, 70, np.float64), 40, clusters.cluster_N, clusters.centroids_KD, probes=probes
    )
    distance = squared(x, x)
    distance.fill_diagonal_(float("inf"))
    near = squared(clusters.centroids_KD, clusters.centroids_KD).argsort(1)[:, :probes]
    for i in range(300):
        allowed = (clusters.cluster_N[:, None] == near[clusters.cluster_N[i]]).any(1)
        others = int(allowed.sum()) - 1
        expected = torch.where(allowed, distance[i], float("inf")).argsort()[: min(40, others)].tolist()
        assert found.index_NK[i].tolist() == expected + [-1] * (40 - len(expected))
        assert found.squared_NK[i].isfinite().sum() == len(expected)


def test_neighbours_do_not_depend_on_the_order_of_the_rows_even_among_copies():
    x = torch.randint(0, 4, (200, 2), generator=torch.Generator().manual_seed(0)).float()  # about twelve of each
    x += torch.arange(200)[:, None] // 8 * 10  # but at most eight of each
    y, ids = shuffled(x)
    one, other = neighbours(x, 3, ids=torch.arange(200)), neighbours(y, 3, ids=ids)
    assert torch.equal(ids[other.index_NK], one.index_NK[ids])
    another = neighbours(x, 3, seed=1)
    assert torch.equal(another.squared_NK, one.squared_NK)
    assert not torch.equal(another.index_NK, one.index_NK)


@settings(max_examples=40)
@given(n=st.integers(2, 30), d=st.integers(1, 4), data=st.data())
def test_neighbours_of_any_shape(n: int, d: int, data: st.DataObject):
    k = data.draw(st.integers(1, n - 1))
    x = torch.randint(0, 3, (n, d), generator=torch.Generator().manual_seed(n * d)).float()
    found = neighbours(x, k, block_size=data.draw(st.integers(1, n)))
    expected = squared(x, x).fill_diagonal_(float("inf")).sort(1).values[:, :k]
    torch.testing.assert_close(found.squared_NK.double(), expected)
    assert (found.index_NK != torch.arange(n)[:, None]).all()
    assert all(len(set(row)) == k for row in found.index_NK.tolist())


# --- duplicates


def naive_semdedup(x: torch.Tensor, cluster: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    score, similarity = torch.full((len(x),), -1.0, dtype=torch.float64), cosines(x, x)
    for i in range(len(x)):
        for j in range(len(x)):
            if cluster[i] == cluster[j] and distance[j] > distance[i]:
                score[i] = max(score[i], similarity[i, j])
    return score


def test_semdedup_is_the_largest_cosine_with_a_row_farther_from_the_centroid():
    x = blobs(150)
    found = kmeans(x, 4, spherical=True)
    expected = naive_semdedup(x, found.cluster_N, found.distance_N)
    for rows in (x, x.numpy(), Shards(x, 40, np.float64)):
        for block_size in (1, 7, 4096):
            torch.testing.assert_close(
                semdedup(rows, found.cluster_N, found.distance_N, block_size=block_size), expected
            )
    easy = semdedup(x, found.cluster_N, -found.distance_N)
    torch.testing.assert_close(easy, naive_semdedup(x, found.cluster_N, -found.distance_N))
    assert (easy != expected).any()


def test_semdedup_reads_small_clusters_together(monkeypatch: pytest.MonkeyPatch):
    x = blobs(150)
    found = kmeans(x, 12, spherical=True)
    whole = semdedup(x, found.cluster_N, found.distance_N)
    monkeypatch.setattr("kdprune.geometry.dedup.AT_ONCE", 20)
    torch.testing.assert_close(semdedup(x, found.cluster_N, found.distance_N), whole)


def test_of_exact_duplicates_exactly_one_has_a_low_score():
    g = torch.Generator().manual_seed(0)
    originals = torch.randn(60, 32, generator=g)
    x = originals.repeat(4, 1)[torch.randperm(240, generator=g)]
    found = kmeans(x, 5, spherical=True)
    score = semdedup(x, found.cluster_N, found.distance_N)
    group = squared(x, originals).argmin(1)
    kept = torch.bincount(group[score < 0.9999], minlength=60)
    assert kept.tolist() == [1] * 60
    # Which one is a draw of the seed and the sample's id, not of the place.
    y, ids = shuffled(x)
    other = kmeans(y, 5, spherical=True, ids=ids)
    again = semdedup(y, other.cluster_N, other.distance_N, ids=ids)
    assert torch.equal(again < 0.9999, (score < 0.9999)[ids])
    assert not torch.equal(semdedup(x, found.cluster_N, found.distance_N, seed=1) < 0.9999, score < 0.9999)


def test_the_first_of_a_cluster_scores_minus_one():
    assert earlier_similarity(torch.randn(1, 4)).tolist() == [-1.0]
    score = earlier_similarity(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.0]]))
    assert score.tolist() == [-1.0, 0.0, 0.0, 1.0]


# --- rows


def test_rows_are_gathered_in_the_order_asked_for():
    x, index = blobs(100), torch.tensor([7, 99, 0, 7, 50])
    for rows in (x, x.numpy(), Shards(x, 30, np.float64)):
        assert torch.equal(gather(rows, index, CPU), x[index])
    assert gather(Shards(x, 30, np.float16), index, CPU).dtype == torch.float32


def test_a_memory_map_is_read_as_it_is(tmp_path):
    x = blobs(dtype=torch.float32).half()
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(kmeans(mapped, 5).cluster_N, kmeans(x, 5).cluster_N)


LABELS = torch.zeros(20, dtype=torch.int64)
CALLS = {
    "kmeans": lambda x, ids=None: kmeans(x, 3, ids=ids),
    "neighbours": lambda x, ids=None: neighbours(x, 3, ids=ids),
    "neighbours_in_clusters": lambda x, ids=None: neighbours_in_clusters(x, 3, LABELS, torch.zeros(1, 3), ids=ids),
    "semdedup": lambda x, ids=None: semdedup(x, LABELS, torch.zeros(20), ids=ids),
    "to_class_mean": lambda x: to_class_mean(x, LABELS),
    "to_class_median": lambda x: to_class_median(x, LABELS),
    "to_nearest_centroid": lambda x: to_nearest_centroid(x, torch.eye(3)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(name: str, bad: float):
    x = torch.ones(20, 3)
    x[13, 1] = bad
    for rows in (x, x.numpy(), Shards(x, 6)):
        with pytest.raises(ValueError, match=r"row 13"):
            CALLS[name](rows)


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("to_")])
def test_ids_are_one_for_each_row(name: str):
    with pytest.raises(ValueError, match=r"ids: 7 given twice"):
        CALLS[name](torch.rand(20, 3), [7, 7, *range(18)])
    with pytest.raises(ValueError, match=r"ids: 19 given"):
        CALLS[name](torch.rand(20, 3), range(19))


def test_what_cannot_be_is_refused():
    x = torch.rand(20, 3)
    for wrong in (0, 21):
        with pytest.raises(ValueError, match=rf"k: {wrong} given, allowed is 1 to 20"):
            kmeans(x, wrong)
    with pytest.raises(ValueError, match=r"k: 20 given, allowed is 1 to 19"):
        neighbours(x, 20)
    with pytest.raises(ValueError, match=r"probes: 2 given, allowed is 1 to 1"):
        neighbours_in_clusters(x, 3, LABELS, torch.zeros(1, 3), probes=2)
    for wrong in (torch.rand(20), torch.rand(0, 3), torch.rand(20, 0), torch.rand(2, 2, 2)):
        with pytest.raises(ValueError, match=r"allowed is N×D"):
            kmeans(wrong, 1)
    with pytest.raises(ValueError, match=r"labels: 19 given for 20"):
        to_class_mean(x, LABELS[1:])
    with pytest.raises(ValueError, match=r"labels: -1 given"):
        to_class_median(x, LABELS - 1)
    with pytest.raises(ValueError, match=r"distance_N: row 3"):
        semdedup(x, LABELS, torch.where(torch.arange(20) == 3, float("nan"), 0.0))
    with pytest.raises(ValueError, match=r"cluster_N: 19 given"):
        semdedup(x, LABELS[1:], torch.zeros(20))
