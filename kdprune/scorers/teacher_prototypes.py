"""How far from all prototypes of a teacher. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.prototypes import from_nearest_centroid
from kdprune.scorers.common.scorer import scorer


@scorer(
    "teacher_prototypes",
    needs="teacher",
    reads=["features", "ids", "classes", "seed", "mapper"],
    hard="high",
    labels=False,
    paper="Sorscher et al. 2022, arXiv 2206.14486",
    cost="one forward pass, then k-means",
)
def teacher_prototypes(
    features_ND: Rows, ids_N: Tensor, classes: int, seed: int, mapper: Mapper, clusters: int | None = None
) -> Tensor:
    """1 − cos(h, c) with the nearest c of K centroids of spherical k-means, of a teacher's features (see `prototypes`).

    Far is hard. A teacher that was trained on the labels has features that are gathered by class already.

    Args:
        clusters: K (default: as many as the data set has classes; 100 where it has none). Published results hardly
            differ within a tenth and ten times the number of classes.

    Raises:
        ValueError: more clusters than samples.
    """
    return from_nearest_centroid(features_ND, ids_N, clusters, classes or 100, seed, mapper)
