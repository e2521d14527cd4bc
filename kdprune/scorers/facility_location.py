"""The order of greedy facility location. Shapes: N samples, D features, K in order of a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdprune.geometry import facility_location as geometry
from kdprune.geometry.rows import Rows
from kdprune.scorers.common.features import greedily_by_class
from kdprune.scorers.common.scorer import scorer


@scorer(
    "facility_location",
    needs="embeddings",
    reads=["features", "labels", "ids", "seed"],
    hard="high",
    labels=True,
    paper="Mirzasoleiman et al. 2020, arXiv 1906.01827",
    cost="one forward pass, then all distances inside each class, twice at least",
)
def facility_location(
    features_ND: Rows, labels_N: Tensor, ids_N: Tensor, seed: int, keep_fraction: float = 0.5
) -> Tensor:
    """(K − place)/K in the order of choice inside each class; 0 for the rest (CRAIG, algorithm 1).

    Each choice makes the sum of the distances of all samples of the class to the nearest one chosen as small as can be,
    on embeddings (the paper's bound is of gradients of the last layer). High is chosen first: keep the highest, at most
    as many as were put in order. CRAIG's weights of the chosen are not part of a score.

    Args:
        keep_fraction: K / N of each class, the largest share that is to be kept; time grows with it.

    Raises:
        ValueError: a fraction outside of (0, 1].
    """

    def choose(rows: Any, count: int, ids: Tensor) -> Tensor:
        return geometry.facility_location(rows, count, ids=ids, seed=seed).chosen

    return greedily_by_class(features_ND, labels_N, ids_N, keep_fraction, choose)
