"""The contract of a selector. Shapes: N samples of the unpruned training set, M candidates, D features."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial

import numpy as np

from kdprune import registry
from kdprune.calls import bind
from kdprune.selectors.common.pool import Pool, Selector, mistake

_TOTALS = (1, 7, 60, 500)  # N
_CLASSES, _FEATURES = 5, 4


def check_selector(selector: str | Selector) -> None:
    """Check that a selector keeps what every selector promises, and what it declares of itself.

    It returns `count` of the candidates as ascending int64 ids, the same ones for the same seed, leaves what it is
    given as it is, does not look at labels unless it declares so, and nests if it says so.

    Args:
        selector: its name, with arguments if it takes some (`window(500)`), or the function itself.

    Raises:
        AssertionError: it breaks its contract; the message says how, and for which pool.
    """
    function = _function(selector) if isinstance(selector, str) else partial(selector)
    needs, nested = getattr(function.func, "needs", ()), getattr(function.func, "nested", False)
    for pool in _pools(needs):
        ids = _ids(function, pool)
        _expect((ids == _ids(function, pool)).all(), "the same seed gives other ids", pool)
        if pool.count == len(pool.candidates):
            _expect((ids == pool.candidates).all(), "it does not keep all candidates when asked to", pool)
        if "labels" not in needs:
            others = np.roll(pool.labels, 1) if pool.seed % 2 else np.full_like(pool.labels, -1)
            same = ids == _ids(function, replace(pool, labels=others))
            _expect(same.all(), "it reads labels and does not declare that it needs them", pool)
        if nested:
            larger = replace(pool, count=(pool.count + len(pool.candidates) + 1) // 2)
            _expect(np.isin(ids, _ids(function, larger)).all(), "it is declared nested and is not", pool)


def _function(text: str) -> partial[np.ndarray]:
    call = registry.read_call("selectors", text, "")
    function = registry.get("selectors", call.name)
    return partial(function, **bind(call, function, "selector", supplied=1))


def _pools(needs: tuple[str, ...]) -> Iterator[Pool]:
    """Pools of all sorts: all samples or some, one class or several, one to keep, some, all."""
    numbers = np.random.default_rng(0)
    for seed, total in enumerate(_TOTALS * 2):
        labels_N = numbers.integers(_CLASSES, size=total)
        # Sparse ids, so that a position among the candidates is not mistaken for a sample id.
        is_candidate_N = np.ones(total, dtype=bool) if seed < len(_TOTALS) else numbers.random(total) < 0.6
        is_candidate_N[-1] = True
        candidates_M = np.flatnonzero(is_candidate_N)
        scores_N = numbers.normal(size=total).round(1) if "scores" in needs else None  # rounded: some are equal
        features_ND = numbers.normal(size=(total, _FEATURES)) if "features" in needs else None
        names = [f"class {label}" for label in range(_CLASSES)]
        for count in sorted({1, (len(candidates_M) + 2) // 3, len(candidates_M)}):
            yield Pool(candidates_M, labels_N, names, count, seed, scores_N, features_ND)


def _ids(function: Selector, pool: Pool) -> np.ndarray:
    given = copy.deepcopy(pool)
    try:
        ids = function(given)
    except Exception as error:
        raise AssertionError(f"it raises {type(error).__name__}: {error} ({_written(pool)})") from error
    wrong = mistake(ids, pool)
    _expect(wrong is None, str(wrong), pool)
    for f in fields(pool):
        before, after = getattr(pool, f.name), getattr(given, f.name)
        _expect(np.array_equal(before, after), f"it changes {f.name}", pool)
    return ids


def _expect(kept: bool | np.bool_, broken: str, pool: Pool) -> None:
    # Raised by hand: python -O leaves `assert` out.
    if not kept:
        raise AssertionError(f"{broken} ({_written(pool)})")


def _written(pool: Pool) -> str:
    return f"N = {len(pool.labels)}, M = {len(pool.candidates)}, count = {pool.count}, seed = {pool.seed}"
