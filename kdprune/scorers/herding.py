"""The order of herding. Shapes: N samples, D features, K in order of a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdprune.geometry import herding as geometry
from kdprune.geometry.rows import Rows
from kdprune.scorers.common.features import greedily_by_class
from kdprune.scorers.common.scorer import scorer


@scorer(
    "herding",
    needs="embeddings",
    reads=["features", "labels", "ids", "seed"],
    hard="high",
    labels=True,
    paper="Welling 2009, doi:10.1145/1553374.1553517; Rebuffi et al. 2017 (iCaRL), arXiv 1611.07725",
    cost="one forward pass, then a pass over its class for each sample in order",
)
def herding(features_ND: Rows, labels_N: Tensor, ids_N: Tensor, seed: int, keep_fraction: float = 0.5) -> Tensor:
    """(K − place)/K in the order of choice inside each class; 0 for the rest (Rebuffi et al. 2017, algorithm 4).

    Each choice moves the mean of those chosen as near to the class mean as can be. High is chosen first: keep the
    highest, at most as many as were put in order; each class then has the same share. A smaller subset is the beginning
    of a larger one.

    Args:
        keep_fraction: K / N of each class, the largest share that is to be kept; time grows with it.

    Raises:
        ValueError: a fraction outside of (0, 1].
    """

    def choose(rows: Any, count: int, ids: Tensor) -> Tensor:
        return geometry.herding(rows, count, ids=ids, seed=seed)

    return greedily_by_class(features_ND, labels_N, ids_N, keep_fraction, choose)
