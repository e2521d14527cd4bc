"""What a selector is given, and what it says of itself.

Shapes: N samples of the unpruned training set, M candidates, D features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from kdprune.messages import counted, unknown

log = logging.getLogger("kdprune")

COSTLY = 1e13  # multiplications: minutes on a few cores

MEAN_PROBABILITY = "mean_probability"  # of the label, over the epochs that a score was made of
NEEDS = ("labels", "scores", "features", MEAN_PROBABILITY)

Resolve = Callable[..., dict[str, Any]]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Pool:
    """The samples to choose from and how many of them to keep.

    Quotas of classes are applied around a selector, which is then called once for each class: it reads `candidates`
    and `count`, and never needs to know.

    Attributes:
        candidates: sample ids to choose from, int64 M, ascending.
        labels: class of every sample of the unpruned training set, int64 N, -1 where there is none.
        classes: their names.
        count: how many to keep, 1 to M.
        seed: of the selection.
        scores: of every sample, float32 N, higher is harder, whichever way the scorer counts; ±inf sort as such, and
            no candidate has NaN. None unless there are some.
        features: of every sample, float N×D; None unless there are some.
        extra: further columns of the score file by name, float32 N.
    """

    candidates: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    count: int
    seed: int
    scores: np.ndarray | None = None
    features: np.ndarray | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)


class Selector(Protocol):
    """Chooses `pool.count` of `pool.candidates`: their ids, ascending, int64."""

    def __call__(self, pool: Pool) -> np.ndarray: ...


def declare(needs: Sequence[str] = (), nested: bool = False, resolve: Resolve | None = None) -> Callable[[F], F]:
    """Function decorator: what a selector says of itself. One that says nothing needs nothing and is not nested.

    Args:
        needs: of "labels", "scores", "features" and "mean_probability", those that it reads. Without "labels" they must
            not matter.
        nested: with the same seed, a smaller count keeps a part of what a larger one keeps.
        resolve: `resolve(pool, **arguments)` is called once with the whole pool, before quotas of classes divide it: it
            refuses arguments that the selector cannot work with, by a `ValueError`, and returns those that it then gets
            for every class, what depends on the whole pool among them. They are recorded in the subset file.
    """
    for name in needs:
        if name not in NEEDS:
            raise ValueError(unknown("need of a selector", name, NEEDS))

    def keep(selector: F) -> F:
        selector.needs = tuple(needs)  # type: ignore[attr-defined]
        selector.nested = nested  # type: ignore[attr-defined]
        selector.resolve = resolve  # type: ignore[attr-defined]
        return selector

    return keep


def scores_of(pool: Pool) -> np.ndarray:
    """Scores of the candidates, float32 M; not to be written to."""
    assert pool.scores is not None
    return _of_candidates(pool, pool.scores)


def extra_of(pool: Pool, name: str) -> np.ndarray:
    """A further column of the candidates, float32 M; not to be written to."""
    return _of_candidates(pool, pool.extra[name])


def features_of(pool: Pool) -> np.ndarray:
    """Features of the candidates, float M×D; not to be written to."""
    assert pool.features is not None
    return _of_candidates(pool, pool.features)


def candidates_at(pool: Pool, positions: Tensor) -> np.ndarray:
    """The candidates at positions among them, in any order, as ascending ids."""
    return np.sort(pool.candidates[positions.cpu().numpy()])


def warn_of_cost(name: str, pool: Pool, compared: int) -> None:
    """Warn of more multiplications than minutes suffice for; a class at a time takes a part of them."""
    assert pool.features is not None
    cost = len(pool.candidates) * compared * pool.features.shape[1]
    if cost > COSTLY:
        log.warning(
            "--subset.selector: %s compares %d samples with %d, about %.0e multiplications; a class at a time "
            "(--subset.balanced true) it is a part of that",
            name, len(pool.candidates), compared, cost,
        )  # fmt: skip


def _of_candidates(pool: Pool, values_N: np.ndarray) -> np.ndarray:
    # Candidates ascend, so that as many as there are samples are all of them, and need no copy.
    return values_N if len(pool.candidates) == len(values_N) else values_N[pool.candidates]


def mistake(ids: object, pool: Pool) -> str | None:
    """What is wrong with the ids that a selector returned; None if nothing is."""
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int64 or ids.ndim != 1:
        return f"it returns {getattr(ids, 'dtype', type(ids).__name__)}, and a one-dimensional int64 array is needed"
    if len(ids) != pool.count:
        return f"it keeps {counted(len(ids), 'sample')}, and {pool.count:,} asked for"
    if (ids[1:] <= ids[:-1]).any():
        return "its ids do not ascend without repetition"
    if not _are_candidates(ids, pool):
        return "it keeps samples that are no candidates"
    return None


def _are_candidates(ids: np.ndarray, pool: Pool) -> bool:
    """Whether ascending ids are all candidates."""
    total = len(pool.labels)
    if ids[0] < 0 or ids[-1] >= total:
        return False
    if len(pool.candidates) * 16 < total:  # one of many classes: a mask of all samples would cost more than a search
        places = np.minimum(np.searchsorted(pool.candidates, ids), len(pool.candidates) - 1)
        return bool((pool.candidates[places] == ids).all())
    is_candidate = np.zeros(total, dtype=bool)
    is_candidate[pool.candidates] = True
    return bool(is_candidate[ids].all())
