"""The order of greedy k-center. Shapes: N samples, M observed ones, D features, K in order."""

from __future__ import annotations

from torch import Tensor

from kdprune.geometry import kcenter as geometry
from kdprune.geometry.rows import Rows
from kdprune.scorers.common.features import among_all, count_of, in_order, observed
from kdprune.scorers.common.scorer import scorer


@scorer(
    "kcenter",
    needs="embeddings",
    reads=["features", "ids", "seed"],
    hard="high",
    labels=False,
    paper="Sener & Savarese 2018, arXiv 1708.00489",
    cost="one forward pass, then up to N distances for each sample in order",
)
def kcenter(features_ND: Rows, ids_N: Tensor, seed: int, keep_fraction: float = 0.5) -> Tensor:
    """(K − place)/K in the order of choice, each the farthest from those before it (algorithm 1); 0 for the rest.

    Of all classes together, as published; no labels are needed. High is chosen first: keep the highest, at most as many
    as were put in order. A smaller subset is the beginning of a larger one.

    Args:
        keep_fraction: K / N, the largest share that is to be kept; time grows with it.

    Raises:
        ValueError: a fraction outside of (0, 1].
    """
    rows, positions_M = observed(features_ND)
    count = count_of(keep_fraction, len(rows))
    chosen = geometry.kcenter(rows, count, ids=ids_N[positions_M], seed=seed).chosen
    return among_all(in_order(chosen, len(rows)), positions_M, len(features_ND))
