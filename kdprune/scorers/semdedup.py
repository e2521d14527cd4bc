"""How new a sample is in its cluster. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.dedup import semdedup as earlier_similarity
from kdprune.geometry.kmeans import kmeans
from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.features import among_all, check_clusters, observed
from kdprune.scorers.common.scorer import scorer

PER_CLUSTER = 1000  # samples, about; similarities inside a cluster take its size squared


@scorer(
    "semdedup",
    needs="embeddings",
    reads=["features", "ids", "seed", "mapper"],
    hard="high",
    labels=False,
    paper="Abbas et al. 2023, arXiv 2303.09540",
    cost="one forward pass, then k-means and the similarities inside clusters",
)
def semdedup(features_ND: Rows, ids_N: Tensor, seed: int, mapper: Mapper, clusters: int | None = None) -> Tensor:
    """1 − the largest cosine with an earlier member of the own cluster of spherical k-means.

    Earlier members are those that are farther from the centroid, as published (ties in a seeded order). What has a
    score below ε is what SemDeDup removes; keeping the highest is its ranking for any ε. Of copies all but the first
    have 0, up to rounding; the first member of a cluster has 2. High is new, rather than hard. No labels are needed.

    Args:
        clusters: K (default: one for about each 1,000 samples; published 50,000 for 440 million images).

    Raises:
        ValueError: more clusters than samples.
    """
    rows, positions_M = observed(features_ND, mapper=mapper)
    k = check_clusters(clusters, round(len(rows) / PER_CLUSTER), len(rows))
    ids_M = ids_N[positions_M]
    found = kmeans(rows, k, spherical=True, seed=seed, ids=ids_M, mapper=mapper)
    similarity_M = earlier_similarity(rows, found.cluster_N, found.distance_N, ids=ids_M, seed=seed, mapper=mapper)
    return among_all(1 - similarity_M, positions_M, len(features_ND))
