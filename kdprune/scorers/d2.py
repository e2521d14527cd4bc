"""Difficulty and diversity by messages between neighbours. Shapes: N samples, M observed ones, D features."""

from __future__ import annotations

import math

from torch import Tensor

from kdprune.geometry.d2 import d2_select, spread
from kdprune.geometry.kmeans import kmeans
from kdprune.geometry.neighbours import Neighbours, neighbours, neighbours_in_clusters
from kdprune.geometry.rows import Mapper, Rows
from kdprune.messages import listed, shown
from kdprune.scorers.common.epochs import is_whole
from kdprune.scorers.common.features import among_all, count_of, in_order, observed
from kdprune.scorers.common.scorer import scorer

EXACT = 2**17  # samples up to which neighbours are looked for among all others
PER_CLUSTER, PROBES = 1000, 8  # beyond: samples of a cluster, about, and clusters that are looked into


@scorer(
    "d2",
    needs="embeddings",
    reads=["features", "difficulty", "ids", "seed", "mapper"],
    hard="high",
    labels=False,
    paper="Maharana et al. 2024, arXiv 2310.07931",
    cost="another score and one forward pass, then neighbours and a choice of half of the samples",
)
def d2(
    features_ND: Rows, difficulty_N: Tensor, ids_N: Tensor, seed: int, mapper: Mapper, k: int = 10,
    gamma: float = 1.0, keep_fraction: float = 0.5,
) -> Tensor:  # fmt: skip
    """(K − place)/K in the order of the greedy choice; 0 for the rest.

    Forward messages: s_i + Σ_{j ∈ kNN(i)} exp(−d_ij)·s_j with the Euclidean distance d, as in the published code. Then
    the highest is chosen, and lowers each of its neighbours by exp(−γ·d_ij) times its own score, again and again (§3).
    Scores of another scorer, higher is harder, come from `--scores`; they are shifted where the lowest is below 0, as
    published for margins. A sample without such a score has none here.

    Args:
        k: neighbours of each sample; published from 1 to 15.
        gamma: γ of the reverse messages: large ones leave neighbours alone; published from 0 to 1.
        keep_fraction: K / N, the largest share that is to be kept.

    Raises:
        ValueError: infinite scores; k below 1 or not below N; a fraction outside of (0, 1]; a negative γ.
    """
    rows, positions_M = observed(features_ND, ~difficulty_N.isnan(), mapper)
    score_M, ids_M = difficulty_N[positions_M].double(), ids_N[positions_M]
    if len(infinite := ids_M[~score_M.isfinite()]):
        raise ValueError(
            f"{len(infinite):,} of the scores from --scores are infinite (ids {listed(infinite.tolist())}), and cannot "
            "be added to those of neighbours: forgetting(never_learned='max') has none"
        )
    if not is_whole(k) or not 1 <= k < len(rows):
        raise ValueError(f"k: {shown(k)} given, allowed are 1 to {len(rows) - 1:,}, as there are so many other samples")
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma < math.inf:
        raise ValueError(f"gamma: {shown(gamma)} given, allowed is a number from 0")
    count = count_of(keep_fraction, len(rows))
    found = _neighbours(rows, k, ids_M, seed, mapper)
    distance_MK = found.squared_NK.sqrt()
    spread_M = spread(score_M - score_M.amin().clamp(max=0), found.index_NK, distance_MK)
    chosen = d2_select(spread_M, found.index_NK, distance_MK, count, gamma=gamma, ids=ids_M, seed=seed)
    return among_all(in_order(chosen, len(rows)), positions_M, len(difficulty_N))


def _neighbours(rows: Rows, k: int, ids_M: Tensor, seed: int, mapper: Mapper) -> Neighbours:
    """The exact ones where that takes minutes; otherwise those in nearby clusters."""
    if len(rows) <= EXACT:
        return neighbours(rows, k, ids=ids_M, seed=seed, mapper=mapper)
    clusters = kmeans(rows, len(rows) // PER_CLUSTER, seed=seed, ids=ids_M, mapper=mapper)
    return neighbours_in_clusters(
        rows, k, clusters.cluster_N, clusters.centroids_KD, probes=PROBES, ids=ids_M, seed=seed, mapper=mapper
    )
