"""How far from all prototypes. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.kmeans import kmeans
from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.features import among_all, check_clusters, observed
from kdprune.scorers.common.scorer import scorer


@scorer(
    "prototypes",
    needs="embeddings",
    reads=["features", "ids", "classes", "seed", "mapper"],
    hard="high",
    labels=False,
    paper="Sorscher et al. 2022, arXiv 2206.14486",
    cost="one forward pass, then k-means",
)
def prototypes(
    features_ND: Rows, ids_N: Tensor, classes: int, seed: int, mapper: Mapper, clusters: int | None = None
) -> Tensor:
    """1 − cos(h, c) with the nearest c of K centroids of spherical k-means (§6).

    Far is hard. Published with the embeddings of a self-supervised model (SwAV) on ImageNet. No labels are needed.

    Args:
        clusters: K (default: as many as the data set has classes; 100 where it has none). Published results hardly
            differ within a tenth and ten times the number of classes.

    Raises:
        ValueError: more clusters than samples.
    """
    rows, positions_M = observed(features_ND, mapper=mapper)
    k = check_clusters(clusters, classes or 100, len(rows))
    found = kmeans(rows, k, spherical=True, seed=seed, ids=ids_N[positions_M], mapper=mapper)
    return among_all(found.distance_N, positions_M, len(features_ND))
