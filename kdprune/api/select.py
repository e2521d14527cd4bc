"""A subset of data at hand.

Shapes: N samples, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kdprune.api.data import parts_of
from kdprune.api.surroundings import restored_surroundings
from kdprune.data.dataset import cache_root
from kdprune.data.fingerprint import identify
from kdprune.data.scores import Hard, Scores
from kdprune.data.sources import Source, from_indexable, open_source
from kdprune.data.sources.base import count_classes
from kdprune.data.subset import Subset, class_ids
from kdprune.selectors.common.samples import Samples, samples_of
from kdprune.selectors.common.select import select as select_samples


def select(
    data: Any,
    keep_fraction: float,
    selector: str = "random",
    *,
    balanced: bool = False,
    class_floor: float = 0,
    without_classes: Sequence[int | str] = (),
    seed: int = 0,
    scores: ArrayLike | Scores | None = None,
    hard: Hard | None = None,
    features: ArrayLike | None = None,
) -> Subset:
    """Choose a subset of round(keep_fraction · N) samples: the one that `train` with these settings would keep.

    Args:
        data: the training set: a name such as "digits", a data set as for `train` (of a pair the first part), or its
            labels alone, whole numbers N (−1 for none). A subset of labels alone fits `Views` of data with the same
            labels, but no run: its file does not say which images it belongs to. Or `Scores`, which know theirs.
        keep_fraction: kept / all, in (0, 1].
        selector: a name, or a name with arguments, such as "window(start=0.5)" (`kdprune list selectors`).
        balanced: exact share for every class, by largest remainder.
        class_floor: least number of kept samples for every class; or a share in (0, 1) of those that uniform pruning
            would leave of it.
        without_classes: names or indices of classes of which no sample is kept.
        seed: the same seed gives the same subset everywhere.
        scores: numbers N, for selectors that need them; or `Scores` of this data.
        hard: whether a high or a low score means a hard sample (default: high; of `Scores`: as they say).
        features: float N×D, likewise.

    Returns:
        The kept sample ids, positions in the training set; `save` writes a file for `subset.file`.

    Raises:
        ValueError: a fraction outside (0, 1]; an unknown selector, or one that lacks what it needs; unknown classes;
            scores of other data, or not one for each sample; nothing is left.

    Example:
        >>> import kdprune
        >>> kdprune.select([0, 0, 0, 1, 1, 1], 0.5, balanced=True).ids.tolist()
        [1, 4, 5]
        >>> kdprune.select([0, 0, 0, 1, 1, 1], 0.5, "hardest", scores=[1, 9, 2, 8, 3, 7]).ids.tolist()
        [1, 3, 5]
    """
    if isinstance(data, Scores):
        if scores is not None:
            raise ValueError("scores: given beside data that are scores themselves; leave one of the two out")
        labels, fingerprint, classes, scores = data.labels, data.fingerprint, list(data.classes), data
    else:
        with restored_surroundings():
            labels, fingerprint, classes = _known(data)
    samples = _samples(labels, fingerprint, classes, scores, hard)
    if features is not None:
        samples = replace(samples, features=np.asarray(features))
    return select_samples(
        samples,
        keep_fraction,
        selector,
        balanced=balanced,
        class_floor=class_floor,
        without_classes=class_ids([str(item) for item in without_classes], classes),
        seed=seed,
    )


def _samples(
    labels: np.ndarray, fingerprint: str, classes: list[str], scores: ArrayLike | Scores | None, hard: Hard | None
) -> Samples:
    """What is chosen from."""
    if not isinstance(scores, Scores):
        values = None if scores is None else np.asarray(scores)
        return Samples(labels, fingerprint, classes, scores=values, hard=hard or "high")
    if (scores.fingerprint, scores.total) != (fingerprint, len(labels)):
        raise ValueError(
            f"scores: of other data ({scores.total} samples, fingerprint {scores.fingerprint[:12]}…; this data has "
            f"{len(labels)}, {fingerprint[:12]}…)"
        )
    return replace(samples_of(scores, hard=hard), labels=labels, classes=classes)


def _known(data: Any) -> tuple[np.ndarray, str, list[str]]:
    """Labels, fingerprint and class names."""
    if (labels := _as_labels(data)) is not None:
        return labels, fingerprint_of_labels(labels), count_classes(labels)
    if isinstance(data, str):
        source: Source = open_source(data, "train", cache_root(None))
    else:
        source = from_indexable(parts_of(data)[0], "train data", "train")
    return source.labels, identify(source).fingerprint, source.classes


def fingerprint_of_labels(labels: np.ndarray) -> str:
    """What a subset that was chosen by labels alone belongs to: all data with these labels."""
    return f"labels {hashlib.sha256(np.ascontiguousarray(labels, '<i8').data).hexdigest()}"


def _as_labels(data: Any) -> np.ndarray | None:
    """Whole numbers in an array, a tensor or a list; None for anything else, such as a list of pairs."""
    is_list = isinstance(data, list | tuple) and len(data) > 0 and all(isinstance(x, int | np.integer) for x in data)
    if not is_list and not (hasattr(data, "ndim") and hasattr(data, "dtype")):
        return None
    labels = np.asarray(data)
    return labels.astype(np.int64, copy=False) if labels.ndim == 1 and labels.dtype.kind in "iu" else None
