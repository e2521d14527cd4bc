"""How far from the mean of its class. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.prototypes import from_class_mean
from kdprune.scorers.common.scorer import scorer


@scorer(
    "supervised_prototypes",
    needs="embeddings",
    reads=["features", "labels", "mapper"],
    hard="high",
    labels=True,
    paper="Sorscher et al. 2022, arXiv 2206.14486",
    cost="one forward pass",
)
def supervised_prototypes(features_ND: Rows, labels_N: Tensor, mapper: Mapper) -> Tensor:
    """‖h − mean of h over the class‖₂: the class means in place of centroids.

    Far is hard.
    """
    return from_class_mean(features_ND, labels_N, mapper)
