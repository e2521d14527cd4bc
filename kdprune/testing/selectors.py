"""The contract of a selector. Shapes: N samples of the unpruned training set, M candidates, D features."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from kdprune import registry
from kdprune.calls import bind
from kdprune.selectors.common.pool import MEAN_PROBABILITY, Pool, Selector, mistake
from kdprune.selectors.common.quotas import quotas
from kdprune.selectors.common.select import choose

_TOTALS = (1, 7, 60, 500)  # N
_CLASSES, _FEATURES = 5, 4
_SEEDS = 12


def check_selector(selector: str | Selector) -> None:
    """Check that a selector keeps what every selector promises, and what it declares of itself.

    It returns `count` of the candidates as ascending int64 ids, the same ones for the same seed, leaves what it is
    given as it is, does not look at labels unless it declares so, and nests if it says so. Called once for each class
    it gives every class its quota. One that needs scores takes infinite ones, and breaks ties by the seed, so that
    among equal samples neither the first nor the last ones are preferred.

    Args:
        selector: its name, with arguments if it takes some (`window(start=0.5)`), or the function itself.

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
        _check_balanced(function, pool)
    if "scores" in needs and "features" not in needs:
        _check_ties(function, needs)


def _check_balanced(function: partial[np.ndarray], pool: Pool) -> None:
    """Every class keeps its quota where the selector is called once for each, with its arguments resolved before."""
    if resolve := getattr(function.func, "resolve", None):
        arguments = _resolved(resolve, function.keywords, pool)
        known = set(inspect.signature(function.func).parameters)
        _expect(set(arguments) <= known, "it resolves to arguments that it does not take", pool)
        _expect(arguments == _resolved(resolve, arguments, pool), "arguments once resolved are resolved again", pool)
        function = partial(function.func, **arguments)
    try:
        ids = choose(function, pool, balanced=True)
    except ValueError as error:
        raise AssertionError(f"called for each class, {error} ({_written(pool)})") from None
    sizes = np.bincount(pool.labels[pool.candidates])
    kept = np.bincount(pool.labels[ids], minlength=len(sizes))
    present = sizes > 0
    shares = quotas(sizes[present], pool.count, pool.seed, np.flatnonzero(present))
    _expect((kept[present] == shares).all(), "classes do not keep their quotas", pool)


def _resolved(resolve: Any, arguments: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    try:
        return resolve(pool, **arguments)
    except ValueError:  # such as a window beyond the end, which is refused for the whole pool only
        return dict(arguments)


def _check_ties(function: partial[np.ndarray], needs: tuple[str, ...]) -> None:
    """Among samples that are all alike, the kept ones change with the seed and stand no nearer to either end."""
    total, count = 240, 80
    labels_N = np.zeros(total, dtype=np.int64)
    equal_N = np.full(total, 0.5, dtype=np.float32)
    extra = {MEAN_PROBABILITY: equal_N} if MEAN_PROBABILITY in needs else {}
    pools = [Pool(np.arange(total), labels_N, ["class 0"], count, seed, equal_N, None, extra) for seed in range(_SEEDS)]
    kept = [_ids(function, pool) for pool in pools]
    _expect(len({tuple(ids) for ids in kept}) == _SEEDS, "equal samples are not ordered by the seed", pools[0])
    # The mean of `count` of 0 … N−1, drawn without replacement, has this standard deviation; five of them are a lot.
    sd = np.sqrt((total + 1) * (total - count) / (12 * count * _SEEDS))
    centre = np.mean([ids.mean() for ids in kept])
    _expect(abs(centre - (total - 1) / 2) < 5 * sd, "of equal samples, those at one end are preferred", pools[0])


def _function(text: str) -> partial[np.ndarray]:
    call = registry.read_call("selectors", text, "")
    function = registry.get("selectors", call.name)
    return partial(function, **bind(call, function, "selector", supplied=1))


def _pools(needs: tuple[str, ...]) -> Iterator[Pool]:
    """Pools of all sorts: all samples or some, one class or several, one to keep, some, all."""
    numbers = np.random.default_rng(0)
    for seed, total in enumerate(_TOTALS * 3):
        labels_N = numbers.integers(_CLASSES, size=total)
        # Sparse ids, so that a position among the candidates is not mistaken for a sample id.
        is_candidate_N = np.ones(total, dtype=bool) if seed < len(_TOTALS) else numbers.random(total) < 0.6
        is_candidate_N[-1] = True
        candidates_M = np.flatnonzero(is_candidate_N)
        extra = {MEAN_PROBABILITY: numbers.random(total).astype(np.float32)} if MEAN_PROBABILITY in needs else {}
        scores_N = _scores(numbers, total, seed >= 2 * len(_TOTALS), bool(extra)) if "scores" in needs else None
        features_ND = numbers.normal(size=(total, _FEATURES)) if "features" in needs else None
        names = [f"class {label}" for label in range(_CLASSES)]
        for count in sorted({1, (len(candidates_M) + 2) // 3, len(candidates_M)}):
            yield Pool(candidates_M, labels_N, names, count, seed, scores_N, features_ND, extra)


def _scores(numbers: np.random.Generator, total: int, infinite: bool, are_weights: bool) -> np.ndarray:
    """Scores of which some are equal, some are infinite if asked for, and none is below 0 if they are weights."""
    scores_N = numbers.normal(size=total).round(1)
    if infinite:
        scores_N[numbers.random(total) < 0.3] = np.inf
        scores_N[numbers.random(total) < 0.1] = -np.inf
    return (np.abs(scores_N) if are_weights else scores_N).astype(np.float32)


def _ids(function: Selector, pool: Pool) -> np.ndarray:
    given = copy.deepcopy(pool)
    try:
        ids = function(given)
    except Exception as error:
        raise AssertionError(f"it raises {type(error).__name__}: {error} ({_written(pool)})") from error
    wrong = mistake(ids, pool)
    _expect(wrong is None, str(wrong), pool)
    for f in fields(pool):
        _expect(_equal(getattr(pool, f.name), getattr(given, f.name)), f"it changes {f.name}", pool)
    return ids


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    return np.array_equal(before, after)


def _expect(kept: bool | np.bool_, broken: str, pool: Pool) -> None:
    # Raised by hand: python -O leaves `assert` out.
    if not kept:
        raise AssertionError(f"{broken} ({_written(pool)})")


def _written(pool: Pool) -> str:
    return f"N = {len(pool.labels)}, M = {len(pool.candidates)}, count = {pool.count}, seed = {pool.seed}"
