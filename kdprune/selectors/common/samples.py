"""What a subset may be chosen from: the training set, who is barred from it, and what is known of each sample.

Shapes: N samples of the unpruned training set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdprune.data.scores import Hard, Scores
from kdprune.messages import counted, listed, shown

log = logging.getLogger("kdprune")

_NONE = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Samples:
    """The unpruned training set, as far as a choice depends on it.

    Attributes:
        labels: class of every sample, int64 N, -1 where there is none.
        fingerprint: of the data set.
        classes: their names.
        dropped: ids of unreadable images, which are not kept and are recorded in the subset.
        excluded: other samples that are not kept, such as those for validation: their ids, or a mask, bool N.
        scores: as the scorer counts, float N, for selectors that need them.
        hard: whether a high or a low score means a hard sample; selectors are shown high ones.
        scorer: what the scores are, as it was written.
        extra: further columns of the scorer, float N each.
        features: float N×D, for selectors that need them.
        record: what the features are: the hash of the key of their record.
        origin: what was observed for the scores, JSON values.
    """

    labels: np.ndarray
    fingerprint: str
    classes: Sequence[str] = ()
    dropped: np.ndarray = field(default_factory=_NONE.copy)
    excluded: np.ndarray = field(default_factory=_NONE.copy)
    scores: np.ndarray | None = None
    features: np.ndarray | None = None
    hard: Hard = "high"
    scorer: str = "given"
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    record: str = "given"
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: {labels.dtype} of shape {labels.shape} given, allowed are whole numbers, N ≥ 1")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        if self.scores is not None:
            object.__setattr__(self, "scores", _column("scores", self.scores, len(labels)))
        extra = {name: _column(name, column, len(labels)) for name, column in self.extra.items()}
        object.__setattr__(self, "extra", extra)

    @property
    def labelled(self) -> bool:
        return bool((self.labels >= 0).all())


def samples_of(
    scores: Scores, dropped: np.ndarray = _NONE, excluded: np.ndarray = _NONE, hard: Hard | None = None
) -> Samples:
    """The training set that a score file speaks of; samples that were not observed are excluded.

    Args:
        scores: of all samples.
        dropped: ids of unreadable images, if they are known.
        excluded: ids of other samples that are not kept.
        hard: which scores are hard, against what the file says.
    """
    barred = np.isnan(scores.values)
    labels = scores.labels
    if missing := np.count_nonzero(barred):
        log.warning(
            "%s: of %s, %d not observed and not kept (ids %s)",
            scores.scorer, counted(scores.total, "sample"), missing, listed(np.flatnonzero(barred)),
        )  # fmt: skip
    barred[excluded] = True
    return Samples(
        labels, scores.fingerprint, scores.classes, dropped, barred, scores.values, None, hard or scores.hard,
        scores.scorer, scores.extra, origin=scores.origin,
    )  # fmt: skip


def left_out(samples: Samples, without_classes: Sequence[int]) -> np.ndarray:
    """Who must not be kept, bool N."""
    out = np.zeros(len(samples.labels), dtype=bool)
    for what in ("dropped", "excluded"):
        out |= _mask(what, np.asarray(getattr(samples, what)), len(out))
    if len(without_classes):
        is_without = np.zeros(max(samples.labels.max(), *without_classes) + 1, dtype=bool)
        is_without[list(without_classes)] = True
        out |= is_without[samples.labels]
    return out


def _mask(what: str, given: np.ndarray, total: int) -> np.ndarray:
    """Sample ids or a mask, as a mask."""
    if given.dtype == bool and given.shape == (total,):
        return given
    mask = np.zeros(total, dtype=bool)
    if given.size:
        are_ids = np.issubdtype(given.dtype, np.integer) and given.ndim == 1
        if not are_ids or given.min() < 0 or given.max() >= total:
            raise ValueError(f"{what}: allowed are sample ids from 0 to {total - 1}, or a mask of {total} samples")
        mask[given] = True
    return mask


def difficulty(samples: Samples) -> np.ndarray | None:
    """The scores, turned so that higher is harder."""
    if samples.hard not in ("high", "low"):
        raise ValueError(f"hard: {shown(samples.hard)} given, allowed are high and low")
    return samples.scores if samples.hard == "high" or samples.scores is None else -samples.scores


def check_known(samples: Samples, needs: Sequence[str], is_left_out: np.ndarray) -> None:
    """Refuse candidates whose score is not known."""
    for name, column in (("scores", samples.scores), *samples.extra.items()):
        if name not in needs or column is None:
            continue
        unknown = np.isnan(column)
        unknown[is_left_out] = False
        if unknown.any():
            ids = np.flatnonzero(unknown)
            raise ValueError(
                f"{name}: none (NaN) for {counted(len(ids), 'sample')} that may be kept: {listed(ids)}. Observe, or "
                "exclude, what has none"
            )


def _column(name: str, values: np.ndarray, total: int) -> np.ndarray:
    """A number for each sample, float32 N."""
    values = np.asarray(values)
    if values.shape != (total,) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}: {values.dtype} of shape {values.shape} given, allowed is a number for each of "
            f"{counted(total, 'sample')}"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.ascontiguousarray(values, dtype=np.float32)
