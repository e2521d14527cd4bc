"""What a selector is given, and what it says of itself.

Shapes: N samples of the unpruned training set, M candidates, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from kdprune.messages import unknown

NEEDS = ("labels", "scores", "features")

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
        scores: of every sample, float N; None unless there are some.
        features: of every sample, float N×D; None unless there are some.
    """

    candidates: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    count: int
    seed: int
    scores: np.ndarray | None = None
    features: np.ndarray | None = None


class Selector(Protocol):
    """Chooses `pool.count` of `pool.candidates`: their ids, ascending, int64."""

    def __call__(self, pool: Pool) -> np.ndarray: ...


def declare(needs: Sequence[str] = (), nested: bool = False) -> Callable[[F], F]:
    """Function decorator: what a selector says of itself. One that says nothing needs nothing and is not nested.

    Args:
        needs: of "labels", "scores" and "features", those that it reads. Without "labels" they must not matter.
        nested: with the same seed, a smaller count keeps a part of what a larger one keeps.
    """
    for name in needs:
        if name not in NEEDS:
            raise ValueError(unknown("need of a selector", name, NEEDS))

    def keep(selector: F) -> F:
        selector.needs = tuple(needs)  # type: ignore[attr-defined]
        selector.nested = nested  # type: ignore[attr-defined]
        return selector

    return keep


def mistake(ids: object, pool: Pool) -> str | None:
    """What is wrong with the ids that a selector returned; None if nothing is."""
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int64 or ids.ndim != 1:
        return f"it returns {getattr(ids, 'dtype', type(ids).__name__)}, and a one-dimensional int64 array is needed"
    if len(ids) != pool.count:
        return f"it keeps {len(ids)} samples, and {pool.count} were asked for"
    if (np.diff(ids) <= 0).any():
        return "its ids do not ascend without repetition"
    is_candidate = np.zeros(len(pool.labels), dtype=bool)
    is_candidate[pool.candidates] = True
    if ids[0] < 0 or ids[-1] >= len(pool.labels) or not is_candidate[ids].all():
        return "it keeps samples that are no candidates"
    return None
