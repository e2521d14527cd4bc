"""Simulated records, for the contract of scorers.

Shapes: N samples, R repeats, E epochs, M trainings, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune.records.statistics import DERIVED, OF_LABELS, STATISTICS, derived, statistics
from kdprune.scorers.common.observation import Observation

_CLASSES, _FEATURES, _TRAININGS = 5, 6, 12
_OF_LABELS = (*OF_LABELS, "last_layer_gradient_norm", "gradient_norm")


@dataclass(frozen=True)
class Case:
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

    def moved(self, order_N: np.ndarray) -> Case:
        """The same samples in another order."""
        axis = -1 if self.kind == "dynamics" else 0
        values = {name: np.take(value, order_N, axis) for name, value in self.values.items()}
        by_sample = {name: getattr(self, name)[order_N] for name in ("labels", "difficulty", "ids", "observed")}
        return replace(self, values=values, **by_sample)

    def unlabelled(self) -> Case:
        """As it would have been recorded without labels."""
        values = {
            name: np.full_like(value, np.nan) if name in _OF_LABELS else value for name, value in self.values.items()
        }
        return replace(self, values=values, labels=np.full_like(self.labels, -1))


class _Blocks:
    def __init__(self, case: Case) -> None:
        self.case = case

    def read(self, name: str, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self.case.values[name][..., start:stop] if self.case.kind == "dynamics"
                                else self.case.values[name][start:stop])  # fmt: skip


class _Columns:
    def __init__(self, case: Case) -> None:
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
        if not isinstance(where, slice):
            raise AssertionError("features are read by slices")
        return self._array[where]


def simulated(kind: str, total: int, repeats: int, epochs: int, *, seed: int) -> Case:
    """A data set of which a tenth is mislabelled, some samples are alike, and an eighth was not observed."""
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
    return Case(kind, values, labels_N, difficulty_N, ids_N, observed_N, size)


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
    return counts_of(correct_NM, trained_NM)


def counts_of(correct_NM: np.ndarray, trained_NM: np.ndarray) -> dict[str, np.ndarray]:
    """What is recorded of M trainings: how many had a sample in their part or not, and were right about it."""
    sums = {"trained": trained_NM, "untrained": ~trained_NM, "right_trained": correct_NM & trained_NM,
            "right_untrained": correct_NM & ~trained_NM}  # fmt: skip
    return {name: flags_NM.sum(1).astype(np.float32) for name, flags_NM in sums.items()}


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
