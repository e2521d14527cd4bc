"""The contract of a scorer. Shapes: N samples, R repeats, E epochs, M trainings, C classes, D features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.records.statistics import DERIVED, STATISTICS, derived, statistics
from kdprune.scorers.common.apply import bound, compute
from kdprune.scorers.common.observation import Observation
from kdprune.scorers.common.scorer import Declared

_CLASSES, _FEATURES, _TRAININGS, _BLOCK = 5, 6, 12, 13
# N, R, E: with fewer epochs a scorer may say by a ValueError that it needs more.
_SIZES = ((40, 1, 12), (97, 3, 35))
_SHORT = ((17, 2, 3), (9, 1, 1))


def check_scorer(scorer: str | Callable[..., Any]) -> None:
    """Check that a scorer keeps what every scorer promises, and what it declares of itself.

    Over simulated records of the kind that it needs, it returns a floating-point score for each sample, NaN for those
    that were not observed and for no others; the same ones in the same call; and for samples in another order the same
    ones in that order. It leaves what it is given as it is, does not look at labels unless it declares that it needs
    them, and scores blocks of samples as it scores all of them, unless it reads features. `difficulty` is between 0 and
    1 in these records, and there are 12 epochs at least, or it may refuse them.

    Args:
        scorer: its name, with arguments if it takes some (`aum(epochs=5)`), or the decorated function itself.

    Raises:
        AssertionError: it breaks its contract; the message says how, and for which record.
        ValueError: no scorer of this name, or wrong arguments of it.
    """
    if isinstance(scorer, str):
        _, function, arguments = bound(scorer, "")
    else:
        function, arguments = scorer, {}
    says = getattr(function, "declared", None)
    if not isinstance(says, Declared):
        raise AssertionError("it is not declared: decorate it with kdprune.scorers.common.scorer.scorer")
    for number, (size, may_refuse) in enumerate([*((s, False) for s in _SIZES), *((s, True) for s in _SHORT)]):
        _Check(partial(function, **arguments), says, _simulated(says.needs, *size, seed=number), may_refuse).run()


@dataclass(frozen=True)
class _Case:
    """A simulated record, and what is known of it.

    Attributes:
        values: by name, with the samples as the last dimension of dynamics and the first one of all others.
        observed: bool N.
        size: how messages call it.
    """

    kind: str
    values: dict[str, np.ndarray]
    labels: np.ndarray
    difficulty: np.ndarray
    ids: np.ndarray
    observed: np.ndarray
    size: str

    def observation(self) -> Observation:
        names = tuple(f"class {c}" for c in range(_CLASSES))
        return Observation(self.kind, self.labels, "simulated", names, {}, _Blocks(self), _Columns(self))

    def moved(self, order_N: np.ndarray) -> _Case:
        """The same samples in another order."""
        axis = -1 if self.kind == "dynamics" else 0
        values = {name: np.take(value, order_N, axis) for name, value in self.values.items()}
        by_sample = {name: getattr(self, name)[order_N] for name in ("labels", "difficulty", "ids", "observed")}
        return replace(self, values=values, **by_sample)

    def unlabelled(self) -> _Case:
        """As it would have been recorded without labels."""
        values = {
            name: np.full_like(value, np.nan) if name in _OF_LABELS else value for name, value in self.values.items()
        }
        return replace(self, values=values, labels=np.full_like(self.labels, -1))


_OF_LABELS = (*STATISTICS[:3], *DERIVED, "last_layer_gradient_norm", "gradient_norm")


@dataclass
class _Check:
    function: Callable[..., Any]
    says: Declared
    case: _Case
    may_refuse: bool

    def run(self) -> None:
        columns = self.columns(self.case)
        if columns is None:
            return
        missing = ~self.case.observed
        nan = np.isnan(columns["score"])
        self.expect((nan | ~missing).all(), "a sample that was not observed has a score, and should have NaN")
        self.expect((missing | ~nan).all(), "the score of a sample that was observed is NaN")
        for name, column in columns.items():
            self.expect(np.isnan(column[missing]).all(), f"{name} of a sample that was not observed is not NaN")
        self.same(self.case, columns, 0.0, "the same call gives other scores")
        if not self.says.labels:
            message = "it needs labels and declares that it does not"
            self.same(replace(self.case, labels=np.roll(self.case.labels, 1)), columns, 0.0, message)
            self.same(self.case.unlabelled(), columns, 0.0, message)
        order = np.random.default_rng(0).permutation(len(missing))
        moved = {name: column[order] for name, column in columns.items()}
        self.same(self.case.moved(order), moved, 1e-5, "scores do not move with their samples and ids")
        if self.says.per_sample:
            message = f"the scores of {_BLOCK} samples at a time are others than those of all samples"
            self.same(self.case, columns, 1e-5, message, block=_BLOCK)

    def same(
        self, case: _Case, expected: Mapping[str, np.ndarray], tolerance: float, broken: str, block: int | None = None
    ) -> None:
        found = self.columns(case, block)
        self.expect(found is not None and found.keys() == expected.keys(), broken)
        for name, column in (found or {}).items():
            close = np.allclose(column, expected[name], rtol=tolerance, atol=tolerance / 10, equal_nan=True)
            self.expect(close, f"{broken} ({name})")

    def columns(self, case: _Case, block: int | None = None) -> dict[str, np.ndarray] | None:
        """What it computes; None if it says, and may say, that the record is too short."""
        before = {name: value.copy() for name, value in case.values.items()}
        try:
            columns = compute(
                self.looked_at(), self.says, case.observation(), {},
                seed=3, difficulty=case.difficulty, ids=case.ids, block=block,
            )  # fmt: skip
        except AssertionError:
            raise
        except Exception as error:
            if self.may_refuse and isinstance(error, ValueError) and "contract" not in str(error):
                return None
            raise AssertionError(f"it raises {type(error).__name__}: {error} ({self.case.size})") from error
        for name, value in case.values.items():
            self.expect(np.array_equal(value, before[name], equal_nan=True), f"it changes {name}")
        return columns

    def looked_at(self) -> Callable[..., Any]:
        """The scorer, whose results are looked at before they are converted."""

        @wraps(self.function.func)  # type: ignore[attr-defined]
        def function(*values: Any) -> Any:
            result = self.function(*values)
            for name, column in (result if isinstance(result, Mapping) else {"score": result}).items():
                floating = column.is_floating_point() if isinstance(column, Tensor) else _is_float(column)
                self.expect(floating, f"{name} is no tensor or array of floating-point numbers")
            return result

        return function

    def expect(self, kept: bool | np.bool_, broken: str) -> None:
        # Raised by hand: python -O leaves `assert` out.
        if not kept:
            raise AssertionError(f"{broken} ({self.case.size})")


def _is_float(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind == "f"


class _Blocks:
    def __init__(self, case: _Case) -> None:
        self.case = case

    def read(self, name: str, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self.case.values[name][..., start:stop] if self.case.kind == "dynamics"
                                else self.case.values[name][start:stop])  # fmt: skip


class _Columns:
    def __init__(self, case: _Case) -> None:
        self.case = case

    def rows(self, name: str) -> Any:
        return _Slices(self.case.values[name])


class _Slices:
    """All that a scorer may do with features: their number, and slices."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    def __getitem__(self, where: slice) -> np.ndarray:
        assert isinstance(where, slice), "features are read by slices"
        return self._array[where]


def _simulated(kind: str, total: int, repeats: int, epochs: int, *, seed: int) -> _Case:
    """Classes that are learned one after the other, some samples mislabelled, some alike, some not observed."""
    numbers = np.random.default_rng(seed)
    labels_N = numbers.integers(_CLASSES, size=total)
    observed_N = np.ones(total, dtype=bool)
    observed_N[numbers.choice(total, total // 8, replace=False)] = False
    values = _VALUES[kind](numbers, labels_N, repeats, epochs)
    for value in values.values():
        value[(..., ~observed_N) if kind == "dynamics" else ~observed_N] = np.nan
    if kind == "nothing":
        observed_N[:] = True
    difficulty_N = np.where(observed_N, numbers.random(total).round(1), np.nan).astype(np.float32)
    size = f"{kind}, N = {total}" + (f", R = {repeats}, E = {epochs}" if kind == "dynamics" else "")
    ids_N = np.sort(numbers.choice(10 * total, total, replace=False))  # sparse: no position is mistaken for one
    return _Case(kind, values, labels_N, difficulty_N, ids_N, observed_N, size)


def _dynamics(numbers: np.random.Generator, labels_N: np.ndarray, repeats: int, epochs: int) -> dict[str, np.ndarray]:
    records = [_training(numbers, labels_N, epochs) for _ in range(repeats)]
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


def _training(numbers: np.random.Generator, labels_N: np.ndarray, epochs: int) -> dict[str, np.ndarray]:
    """Every statistic, E×N, rounded as it is recorded, so that some are equal."""
    labels = torch.from_numpy(labels_N)
    shown_NC = np.eye(_CLASSES)[np.where(numbers.random(len(labels_N)) < 0.1, (labels_N + 1) % _CLASSES, labels_N)]
    rows, previous = [], None
    for epoch in range(epochs):
        logits_NC = 8 * (epoch + 1) / epochs * shown_NC + numbers.normal(size=shown_NC.shape)
        logits = torch.from_numpy(np.repeat(logits_NC[::2], 2, axis=0)[: len(labels_N)])
        rows.append(statistics(logits, labels, previous))
        previous = logits.float().log_softmax(1)
    stored = {name: torch.stack([row[i] for row in rows]).half().float() for i, name in enumerate(STATISTICS)}
    return {name: x.numpy() for name, x in (stored | {d: derived(d, stored[s]) for d, s in DERIVED.items()}).items()}


def _gradients(numbers: np.random.Generator, labels_N: np.ndarray, repeats: int, _: int) -> dict[str, np.ndarray]:
    names = ("gradient_norm", "last_layer_gradient_norm")
    return {name: numbers.gamma(2, size=(len(labels_N), repeats)).round(1).astype(np.float32) for name in names}


def _memorization(numbers: np.random.Generator, labels_N: np.ndarray, *_: int) -> dict[str, np.ndarray]:
    trained_NM = numbers.random((len(labels_N), _TRAININGS)) < 0.7
    trained_NM[:, :2] = (True, False)
    correct_NM = numbers.random(trained_NM.shape) < np.where(trained_NM, 0.9, 0.6)
    return {"correct": correct_NM.astype(np.float32), "trained": trained_NM.astype(np.float32)}


def _embeddings(numbers: np.random.Generator, labels_N: np.ndarray, *_: int) -> dict[str, np.ndarray]:
    features_ND = 3 * np.eye(_CLASSES, _FEATURES)[labels_N] + numbers.normal(size=(len(labels_N), _FEATURES))
    features_ND[1::8] = features_ND[: len(features_ND[1::8])]  # some are copies
    return {"features": features_ND.astype(np.float32)}


def _teacher(numbers: np.random.Generator, labels_N: np.ndarray, *_: int) -> dict[str, np.ndarray]:
    last = {name: x[-1] for name, x in _training(numbers, labels_N, 4).items()}
    norms = _gradients(numbers, labels_N, 1, 1)["last_layer_gradient_norm"][:, 0]
    return {**last, "last_layer_gradient_norm": norms, **_embeddings(numbers, labels_N)}


_VALUES: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "nothing": lambda *_: {},
    "dynamics": _dynamics,
    "gradients": _gradients,
    "teacher": _teacher,
    "memorization": _memorization,
    "embeddings": _embeddings,
}
