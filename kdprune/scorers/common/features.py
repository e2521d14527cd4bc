"""Features as scorers read them, without the samples that were not observed; and greedy choices as scores.

Shapes: N samples, M observed ones, K chosen ones, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.geometry.rows import BLOCK, Mapper, Rows, rows_at, spans
from kdprune.messages import shown

IN_MEMORY = 2**32  # bytes of float32 up to which features are read once and kept


class Observed:
    """The rows of the samples that were observed: `len()` and slices, read from the record.

    Args:
        features: of all samples, N×D.
        positions_M: ascending.
    """

    def __init__(self, features: Rows, positions_M: np.ndarray) -> None:
        self._features, self._positions_M = features, positions_M

    def __len__(self) -> int:
        return len(self._positions_M)

    def __getitem__(self, where: slice) -> np.ndarray:
        at = self._positions_M[where]
        if not len(at):
            return np.asarray(self._features[0:0])
        part = np.asarray(self._features[int(at[0]) : int(at[-1]) + 1])
        return part if len(part) == len(at) else part[at - at[0]]

    def at(self, index_M: np.ndarray) -> np.ndarray:
        return rows_at(self._features, torch.from_numpy(self._positions_M[index_M]))

    def __reduce__(self) -> Any:
        # Few samples are not observed: another process is told which, not the positions of all others.
        absent = np.delete(np.arange(len(self._features)), self._positions_M)
        return _without, (self._features, absent)


def _without(features: Rows, absent: np.ndarray) -> Observed:
    return Observed(features, np.delete(np.arange(len(features)), absent))


def observed(
    features: Rows, wanted_N: Tensor | None = None, mapper: Mapper = map
) -> tuple[Rows, Tensor]:  # fmt: skip
    """The observed samples' rows, and their positions among all samples, int64 M. The others' rows are NaN.

    With `map`, what fits into memory is read; with workers, nothing is, since they read what they need.

    Args:
        features: of all samples, N×D.
        wanted_N: bool, to leave out more.
        mapper: `map`, or workers that do the same.

    Raises:
        ValueError: no sample was observed.
    """
    is_observed_N = np.concatenate([*mapper(partial(_is_observed, features), spans(len(features), BLOCK))])
    if wanted_N is not None:
        is_observed_N &= wanted_N.numpy()
    positions_M = np.flatnonzero(is_observed_N)
    if not len(positions_M):
        raise ValueError("no sample has features: they were not observed")
    rows: Rows = Observed(features, positions_M) if len(positions_M) < len(features) else features
    if mapper is map and 4 * len(rows) * rows[0:1].shape[1] <= IN_MEMORY:
        rows = torch.from_numpy(np.ascontiguousarray(rows[0 : len(rows)]))
    return rows, torch.from_numpy(positions_M)


def _is_observed(features: Rows, span: tuple[int, int]) -> np.ndarray:
    return ~np.isnan(np.asarray(features[slice(*span)])).all(1)


def among_all(values_M: Tensor, positions_M: Tensor, total: int) -> Tensor:
    """Values of the observed samples as values of all, float32 N; NaN elsewhere."""
    values_N = torch.full((total,), torch.nan)
    values_N[positions_M] = values_M.float().cpu()
    return values_N


def in_order(chosen_K: Tensor, total: int) -> Tensor:
    """A greedy choice as scores, float32: (K − place)/K for those chosen, the first one 1; 0 for the rest."""
    score = torch.zeros(total)
    score[chosen_K.cpu()] = torch.arange(len(chosen_K), 0, -1).float() / len(chosen_K)
    return score


def count_of(keep_fraction: float, total: int) -> int:
    """How many samples to put in order, one at least.

    Raises:
        ValueError: a fraction outside of (0, 1].
    """
    number = isinstance(keep_fraction, int | float) and not isinstance(keep_fraction, bool)
    if not number or not 0 < keep_fraction <= 1:
        raise ValueError(f"keep_fraction: {shown(keep_fraction)} given, allowed is above 0, up to 1")
    return max(1, math.ceil(keep_fraction * total))


def by_class(rows: Rows, labels_M: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """The rows of each class, and their positions."""
    for label in labels_M.unique().tolist():
        members = (labels_M == label).nonzero().flatten()
        yield (rows[members] if isinstance(rows, Tensor) else Observed(rows, members.numpy())), members


def greedily_by_class(
    features: Rows, labels_N: Tensor, ids_N: Tensor, keep_fraction: float, choose: Callable[[Any, int, Tensor], Tensor]
) -> Tensor:
    """The same share of each class in the order of a greedy choice, as scores, N.

    Args:
        choose: from rows of a class, a count and sample ids to positions in the order of their choice.

    Raises:
        ValueError: a fraction outside of (0, 1].
    """
    rows, positions_M = observed(features)
    score_M = torch.empty(len(positions_M))
    for members_rows, members in by_class(rows, labels_N[positions_M]):
        count = count_of(keep_fraction, len(members))
        score_M[members] = in_order(choose(members_rows, count, ids_N[positions_M[members]]), len(members))
    return among_all(score_M, positions_M, len(labels_N))


def check_clusters(clusters: int | None, usual: int, total: int) -> int:
    """How many clusters; None: the usual number, or as many as there are samples where those are fewer.

    Raises:
        ValueError: none, or more than samples.
    """
    if clusters is None:
        return max(1, min(usual, total))
    if not isinstance(clusters, int) or isinstance(clusters, bool) or not 1 <= clusters <= total:
        raise ValueError(f"clusters: {shown(clusters)} given, allowed are 1 to {total:,}, as there are so many samples")
    return clusters
