"""What subsets are: by class, by difficulty, beside each other and beside other scores.

Shapes: N samples of the unpruned training set, C classes, S subsets, F score files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdprune.data.counter import key
from kdprune.data.scores import Scores
from kdprune.data.subset import Subset
from kdprune.messages import shown
from kdprune.selectors.common.order import first_by_hash

PARTS = 10  # deciles of difficulty
CORRELATED = 1_000_000  # samples that rank correlations are made of, at most


@dataclass(frozen=True)
class Described:
    """One subset.

    Attributes:
        name: what it is called here.
        subset: itself.
        is_kept: bool N.
        counts_C: kept samples of each class; empty without labels.
        shares: kept part of each tenth of the samples, from the easiest to the hardest, by the first score file.
    """

    name: str
    subset: Subset
    is_kept: np.ndarray
    counts_C: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Description:
    """Subsets beside each other.

    Attributes:
        scores: the score files; the first one is what difficulty means.
        names: of the score files.
        sizes_C: samples of each class in the full set; empty without labels.
        subsets: what each of them is.
        jaccard_SS: |A ∩ B| / |A ∪ B|.
        chance_SS: what it would be for independent random subsets of the same sizes.
        spearman_FF, kendall_FF: rank correlations (Kendall's τ_b) of difficulty, NaN where one of two is constant.
    """

    scores: Sequence[Scores]
    names: Sequence[str]
    sizes_C: np.ndarray
    subsets: Sequence[Described]
    jaccard_SS: np.ndarray
    chance_SS: np.ndarray
    spearman_FF: np.ndarray
    kendall_FF: np.ndarray


def describe(subsets: Mapping[str, Subset], scores: Mapping[str, Scores]) -> Description:
    """Describe subsets by scores of the same data set.

    Args:
        subsets: by name, at least one.
        scores: by name, at least one.

    Raises:
        ValueError: a subset or a score file is of other data than the first score file.
    """
    (first_name, first), *_ = scores.items()
    others: list[tuple[str, Subset | Scores]] = [*subsets.items(), *scores.items()]
    for name, other in others:
        if other.fingerprint != first.fingerprint or other.total != first.total:
            raise ValueError(
                f"{name} is of other data than {first_name}: {other.total:,} samples, fingerprint "
                f"{shown(other.fingerprint[:12])}; {first.total:,} samples, {shown(first.fingerprint[:12])}"
            )
    parts = tenths(first.difficulty)
    sizes = counts(first.labels, len(first.classes))
    described = []
    for name, subset in subsets.items():
        is_kept = np.zeros(subset.total, dtype=bool)
        is_kept[subset.ids] = True
        of_class = counts(first.labels[subset.ids], len(sizes))
        described.append(Described(name, subset, is_kept, of_class, np.array([is_kept[part].mean() for part in parts])))
    jaccard, chance = overlaps(list(subsets.values()))
    spearman, kendall = correlations(list(scores.values()))
    return Description(list(scores.values()), list(scores), sizes, described, jaccard, chance, spearman, kendall)


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Samples of each class; those without a label are not counted."""
    return np.bincount(labels[labels >= 0], minlength=classes) if classes else np.zeros(0, dtype=np.int64)


def tenths(difficulty_N: np.ndarray) -> list[np.ndarray]:
    """Sample ids from the easiest tenth to the hardest; samples without a score are in none of them."""
    order = np.argsort(difficulty_N, kind="stable")  # NaN comes last
    order = order[: len(order) - np.count_nonzero(np.isnan(difficulty_N))]
    return [part for part in np.array_split(order, PARTS) if len(part)]


def overlaps(subsets: Sequence[Subset]) -> tuple[np.ndarray, np.ndarray]:
    """Jaccard indices, and those of independent random subsets of the same sizes, float S×S."""
    size = len(subsets)
    jaccard, chance = np.ones((size, size)), np.ones((size, size))
    for i, one in enumerate(subsets):
        for j, other in enumerate(subsets[:i]):
            a, b = len(one.ids), len(other.ids)
            shared = len(np.intersect1d(one.ids, other.ids, assume_unique=True))
            expected = a * b / one.total
            jaccard[i, j] = jaccard[j, i] = shared / (a + b - shared)
            chance[i, j] = chance[j, i] = expected / (a + b - expected)
    return jaccard, chance


def correlations(scores: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Spearman's ρ and Kendall's τ_b of difficulties over the samples that both have scored, float F×F."""
    from scipy import stats  # of all that is described only this needs it

    size = len(scores)
    spearman, kendall = np.ones((size, size)), np.ones((size, size))
    for i, one in enumerate(scores):
        for j, other in enumerate(scores[:i]):
            common = np.flatnonzero(~np.isnan(one.values) & ~np.isnan(other.values))
            if len(common) > CORRELATED:
                common = common[first_by_hash(key("correlated"), common, CORRELATED)]
            # Ranks, because infinite scores have a place but no difference.
            a, b = (stats.rankdata(s.difficulty[common]) for s in (one, other))
            varies = len(common) > 1 and a.min() < a.max() and b.min() < b.max()
            spearman[i, j] = spearman[j, i] = np.corrcoef(a, b)[0, 1] if varies else np.nan
            kendall[i, j] = kendall[j, i] = stats.kendalltau(a, b).statistic if varies else np.nan
    return spearman, kendall
