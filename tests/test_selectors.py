"""The contract of all selectors, built in or not, and the check of it: what breaks the contract fails."""

import numpy as np
import pytest
from helpers import REPO, install

from kdprune import registry
from kdprune.data.counter import key
from kdprune.selectors.common.order import hashes
from kdprune.selectors.common.pool import declare
from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select
from kdprune.testing import check_selector


@pytest.mark.parametrize("name", registry.names("selectors"))
def test_a_registered_selector_keeps_its_contract(name):
    check_selector(name)


def first(pool):
    return pool.candidates[: pool.count]


def by_score(pool, ties=lambda pool: hashes(key(pool.seed, "mine"), pool.candidates)):
    order = np.lexsort((ties(pool), pool.scores[pool.candidates]))
    return np.sort(pool.candidates[order[: pool.count]])


def by_score_and_index(pool):
    return by_score(pool, lambda pool: pool.candidates)


def by_score_and_index_and_seed(pool):
    """Ties are not the same for all seeds, and yet mostly the first ones."""
    return by_score(pool, lambda pool: pool.candidates + hashes(key(pool.seed, "mine"), pool.candidates) % 50)


def nan_for_infinity(pool):
    with np.errstate(invalid="ignore"):
        distances = np.abs(pool.scores - pool.scores[pool.candidates[0]])
    best = pool.candidates[distances[pool.candidates] <= np.sort(distances[pool.candidates])[pool.count - 1]]
    return best[: pool.count]


def frequent_class_first(pool):
    order = np.argsort(-np.bincount(pool.labels)[pool.labels[pool.candidates]], kind="stable")
    return np.sort(pool.candidates[order[: pool.count]])


def shuffled(pool):
    return np.sort(np.random.default_rng(pool.seed + pool.count).permutation(pool.candidates)[: pool.count])


@pytest.mark.parametrize(
    "honest",
    [first, declare(nested=True)(lambda pool: first(pool)),
     declare(needs=["scores"], nested=True)(lambda pool: by_score(pool)),
     declare(needs=["labels"])(lambda pool: frequent_class_first(pool)), shuffled],
)  # fmt: skip
def test_other_honest_selectors(honest):
    check_selector(honest)


def changing(pool):
    ids = pool.candidates[: pool.count].copy()
    pool.candidates[:] = 0
    return ids


MUTANTS = {
    "one more": lambda pool: pool.candidates[: pool.count + 1],
    "one less": lambda pool: pool.candidates[: max(1, pool.count - 1)],
    "descending": lambda pool: first(pool)[::-1],
    "repeated": lambda pool: np.sort(np.append(first(pool)[1:], first(pool)[-1:])),
    "positions": lambda pool: np.arange(pool.count),
    "beyond": lambda pool: np.arange(pool.count) + len(pool.labels),
    "int32": lambda pool: first(pool).astype(np.int32),
    "list": lambda pool: first(pool).tolist(),
    "unseeded": lambda pool: np.sort(np.random.default_rng().permutation(pool.candidates)[: pool.count]),
    "reads labels": frequent_class_first,
    "not nested": declare(nested=True)(lambda pool: shuffled(pool)),
    "changes its input": changing,
    "ties by index": declare(needs=["scores"])(by_score_and_index),
    "ties nearly by index": declare(needs=["scores"])(by_score_and_index_and_seed),
    "loses infinite scores": declare(needs=["scores"])(nan_for_infinity),
    "resolves anew": declare(resolve=lambda pool, start=0: {"start": start + 1})(lambda pool, start=0: first(pool)),
    "resolves to more": declare(resolve=lambda pool: {"step": 1})(lambda pool: first(pool)),
    "needs several classes": lambda pool: first(pool)[: None if len(set(pool.labels[pool.candidates])) > 1 else 0],
}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_breaks_the_contract_fails_the_check(name):
    with pytest.raises(AssertionError, match="seed ="):
        check_selector(MUTANTS[name])


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package of someone else, with a selector of its own."""
    module = """
import numpy as np
from kdprune.selectors.common.pool import declare

@declare(nested=True)
def turned(pool, start: int, step=1):
    if start < 0:
        raise ValueError("start must not be below 0")
    order = list(pool.candidates[start:]) + list(pool.candidates[:start])
    return np.array(sorted(order[: pool.count]), dtype=np.int64)
"""
    install(monkeypatch, tmp_path, "their_selectors", module, {"selectors": "turned = their_selectors:turned"})


def test_a_selector_of_another_package_is_found_takes_parameters_and_is_checked(third_party):
    assert "turned" in registry.names("selectors")
    check_selector("turned(2)")
    subset = select(Samples(np.zeros(10, dtype=int), "f"), 0.3, "turned(start=4)")
    assert subset.ids.tolist() == [4, 5, 6]
    assert subset.chosen["selector"] == "turned(start=4)"
    assert subset.chosen["resolved"] == "turned(step=1, start=4)"
    for text, offered in [
        ("turned", "start"),
        ("turned(1, 2, 3)", "start, step"),
        ("turned(strat=1)", "did you mean 'start'"),
        ("turned(1, start=2)", "twice"),
        ("turned(-1)", "start must not be below 0"),
        ("random(5)", "random takes no parameters"),
        ("random(speed=5)", "'speed'"),
        ("turnde(3)", "did you mean 'turned'"),
        ("turned(3) + random", "allowed is NAME"),
    ]:
        with pytest.raises(ValueError, match=r"^--subset\.selector: ") as caught:
            select(Samples(np.zeros(10, dtype=int), "f"), 0.3, text)
        assert offered in str(caught.value)


def test_the_example_of_the_docs_keeps_its_contract(monkeypatch):
    monkeypatch.setitem(registry._registered, "selectors", dict(registry._registered["selectors"]))
    page = (REPO / "docs" / "selectors.md").read_text()
    exec(page.partition("```python\n")[2].partition("```")[0], {"__name__": "docs"})
    check_selector("extremes")
    check_selector("extremes(centre=1.0)")


def test_every_selector_has_a_section_with_all_that_belongs_to_it():
    page = (REPO / "docs" / "selectors.md").read_text()
    for name in registry.names("selectors"):
        section = page.partition(f"### `{name}`\n")[2].partition("\n##")[0]
        for part in ("*When.*", "*Cost.*", "*Direction.*", "*What was measured here.*"):
            assert part in section, f"{name}: {part}"
