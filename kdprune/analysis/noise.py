"""Labels that are wrong: planting some, calling samples suspect, and how many of the planted ones are found.

Shapes: N samples of the unpruned training set, P of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from kdprune.data.counter import key
from kdprune.data.scores import Scores
from kdprune.selectors.common.order import first_by_hash, highest, uniform


def flip_labels(labels_N: np.ndarray, share: float, num_classes: int, seed: int = 0) -> np.ndarray:
    """Labels of which round(share · labelled) are replaced by another class, uniformly (symmetric noise): int64 N.

    Which ones, and by what, are hashes of (seed, sample id): a larger share flips the same ones and more.

    Raises:
        ValueError: a share outside (0, 1), or one of no sample; fewer than two classes.
    """
    labelled = np.flatnonzero(labels_N >= 0)
    count = round(share * len(labelled)) if 0 < share < 1 else 0
    if not count:
        raise ValueError(f"--planted: {share:g} given, allowed is (0, 1), of {len(labelled):,} labels at least one")
    if num_classes < 2:
        raise ValueError(f"--planted: a label can only become another one, and there is {num_classes} class")
    ids_P = labelled[first_by_hash(key(seed, "planted noise"), labelled, count)]
    # uniform() is below 1, and rounding to float64 could not lift its product to C − 1 for any C below 2⁵².
    steps_P = 1 + (uniform(key(seed, "planted label"), ids_P) * (num_classes - 1)).astype(np.int64)
    flipped_N = labels_N.copy()
    flipped_N[ids_P] = (labels_N[ids_P] + steps_P) % num_classes
    return flipped_N


@dataclass(frozen=True)
class Suspects:
    """Samples whose labels are suspect.

    Attributes:
        scores: by which they are.
        flagged: bool N.
        threshold: the score from which on samples are flagged, itself included.
    """

    scores: Scores
    flagged: np.ndarray
    threshold: float

    @property
    def ids(self) -> np.ndarray:
        """Sample ids of the flagged ones, the most suspect first, int64."""
        ids = np.flatnonzero(self.flagged)
        return ids[np.argsort(-self.scores.difficulty[ids], kind="stable")]


def hardest_share(scores: Scores, share: float, seed: int = 0) -> Suspects:
    """The hardest samples: the highest EL2N (Paul et al. 2021, §4), the lowest AUM (Pleiss et al. 2020).

    Args:
        share: of the samples with a score, in (0, 1); ties are broken by a seeded permutation.

    Raises:
        ValueError: a share outside (0, 1), or one of no sample.
    """
    scored = np.flatnonzero(~np.isnan(scores.values))
    count = round(share * len(scored)) if 0 < share < 1 else 0
    if not count:
        raise ValueError(f"--share: {share:g} given, allowed is (0, 1), of {len(scored):,} scores at least one")
    flagged = np.zeros(scores.total, dtype=bool)
    flagged[scored[highest(scores.difficulty[scored], count, scored, seed)]] = True
    last = scores.difficulty[flagged].min()
    return Suspects(scores, flagged, float(last if scores.hard == "high" else -last))


def beyond(scores: Scores, threshold: float) -> Suspects:
    """The samples whose score is at the threshold or on its hard side."""
    flagged = scores.values >= threshold if scores.hard == "high" else scores.values <= threshold
    return Suspects(scores, flagged, threshold)


def detection(suspects: Suspects, is_wrong_N: np.ndarray) -> dict[str, float]:
    """How well wrong labels are found, over the samples with a score.

    Returns:
        `flagged` and `found`, counts; `precision` = found / flagged (NaN if none is), `recall` = found / wrong; and,
        whatever the threshold, `auroc` and `average_precision` of the order of the scores.

    Raises:
        ValueError: none of them, or all, are wrong.
    """
    scored = ~np.isnan(suspects.scores.values)
    wrong, flagged = is_wrong_N[scored], suspects.flagged[scored]
    if wrong.all() or not wrong.any():
        raise ValueError(f"{wrong.sum():,} of {len(wrong):,} labels are wrong: there is nothing to tell apart")
    found = int((wrong & flagged).sum())
    ranks = rankdata(suspects.scores.difficulty[scored])  # infinite scores are ranked, and their ties kept
    return {
        "flagged": int(flagged.sum()),
        "found": found,
        "precision": found / flagged.sum() if flagged.any() else float("nan"),
        "recall": found / wrong.sum(),
        "auroc": float(roc_auc_score(wrong, ranks)),
        "average_precision": float(average_precision_score(wrong, ranks)),
    }
