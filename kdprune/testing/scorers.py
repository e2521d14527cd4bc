"""The contract of a scorer. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import numpy as np
from torch import Tensor

from kdprune.scorers.common.apply import bound, compute
from kdprune.scorers.common.scorer import Declared
from kdprune.testing.simulated import Case, simulated

# N, R, E: with fewer epochs a scorer may say by a ValueError that it needs more.
_SIZES = ((40, 1, 12), (97, 3, 35))
_SHORT = ((17, 2, 3), (9, 1, 1))
_BLOCK = 13  # samples


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
        _Check(partial(function, **arguments), says, simulated(says.needs, *size, seed=number), may_refuse).run()


@dataclass
class _Check:
    function: Callable[..., Any]
    says: Declared
    case: Case
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
        self, case: Case, expected: Mapping[str, np.ndarray], tolerance: float, broken: str, block: int | None = None
    ) -> None:
        found = self.columns(case, block)
        self.expect(found is not None and found.keys() == expected.keys(), broken)
        for name, column in (found or {}).items():
            close = np.allclose(column, expected[name], rtol=tolerance, atol=tolerance / 10, equal_nan=True)
            self.expect(close, f"{broken} ({name})")

    def columns(self, case: Case, block: int | None = None) -> dict[str, np.ndarray] | None:
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
