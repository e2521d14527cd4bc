"""How far from the median of its class. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry.distances import to_class_median
from kdprune.geometry.rows import Mapper, Rows
from kdprune.scorers.common.features import among_all, observed
from kdprune.scorers.common.scorer import scorer


@scorer(
    "moderate",
    needs="embeddings",
    reads=["features", "labels", "mapper"],
    hard="high",
    labels=True,
    paper="Xia et al. 2023, openreview.net/forum?id=7D5EECbOaf9",
    cost="one forward pass",
)
def moderate(features_ND: Rows, labels_N: Tensor, mapper: Mapper) -> Tensor:
    """‖h − median of h over the class‖₂, the median feature by feature, as in the published code (the paper says mean).

    Far is hard, and neither side is to be kept: the method keeps the *middle* of each class, `--subset.selector
    moderate`.
    """
    rows, positions_M = observed(features_ND, mapper=mapper)
    return among_all(to_class_median(rows, labels_N[positions_M], mapper=mapper), positions_M, len(labels_N))
