"""Distances to prototypes, of any model's features. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.distances import to_class_mean
from kdprune.geometry.kmeans import kmeans
from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.features import among_all, check_clusters, observed


def from_nearest_centroid(
    features_ND: Rows, ids_N: Tensor, clusters: int | None, usual: int, seed: int, mapper: Mapper
) -> Tensor:
    """1 − cos to the nearest centroid of spherical k-means, N; NaN where a sample was not observed.

    Args:
        clusters: K (default: `usual`).

    Raises:
        ValueError: more clusters than samples.
    """
    rows, positions_M = observed(features_ND, mapper=mapper)
    k = check_clusters(clusters, usual, len(rows))
    found = kmeans(rows, k, spherical=True, seed=seed, ids=ids_N[positions_M], mapper=mapper)
    return among_all(found.distance_N, positions_M, len(features_ND))


def from_class_mean(features_ND: Rows, labels_N: Tensor, mapper: Mapper) -> Tensor:
    """Euclidean distance to the mean of the class, N; NaN where a sample was not observed."""
    rows, positions_M = observed(features_ND, mapper=mapper)
    return among_all(to_class_mean(rows, labels_N[positions_M], mapper=mapper), positions_M, len(labels_N))
