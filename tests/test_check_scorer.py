"""The contract of all scorers, built in or not, and the check of it: what breaks the contract fails."""

import itertools
import re

import numpy as np
import pytest
import torch
from helpers import REPO, install

from kdprune import registry
from kdprune.scorers.common.apply import declared, score
from kdprune.scorers.common.observation import Observation
from kdprune.scorers.common.scorer import RECORDED, Declared, scorer
from kdprune.testing import check_scorer

NAMES = registry.names("scorers")


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_scorer_keeps_its_contract(name):
    check_scorer(name)


def test_a_scorer_is_checked_with_its_arguments():
    check_scorer("dual(window=3, epochs=7)")
    with pytest.raises(AssertionError, match="window: 13 given for 12"):
        check_scorer("tdds(window=13)")
    with pytest.raises(ValueError, match="did you mean 'el2n'"):
        check_scorer("el2m")


@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_says_what_it_is(name):
    says = declared(name)
    assert says.cost
    assert says.paper or name == "random"
    assert registry.get("scorers", name).__doc__
    # As the papers have it: these are low for hard samples, all others high.
    assert (says.hard == "low") == (name in ("aum", "margin", "teacher_margin"))
    unlabelled = {"random", "entropy", "least_confidence", "tdds", "prototypes", "semdedup", "kcenter", "d2",
                  "teacher_entropy", "teacher_confidence", "teacher_prototypes"}  # fmt: skip
    assert says.labels == (name not in unlabelled)


def declare(function, needs="dynamics", reads=("loss",), labels=True):
    """The function, declared, and known by no name."""

    def declared_function(*values):
        return function(*values)

    declared_function.declared = Declared(needs, tuple(reads), "high", labels, "", "nothing")
    return declared_function


def of_features(function):
    return declare(function, "embeddings", ("features", "labels"))


def last(loss_REN):
    return loss_REN[:, -1].mean(0)


def by_class(features, labels_N):
    score_N = torch.from_numpy(np.ascontiguousarray(features[0 : len(features)])).norm(dim=1)
    return score_N + labels_N


@pytest.mark.parametrize(
    "honest",
    [declare(last), declare(lambda x: {"score": last(x), "more": -last(x)}), declare(lambda x: last(x).numpy()),
     declare(lambda x: last(x).double()), declare(lambda x: torch.where(last(x) > 1, torch.inf, last(x))),
     of_features(by_class)],
)  # fmt: skip
def test_other_honest_scorers(honest):
    check_scorer(honest)


def refuse(loss_REN):
    raise ValueError("no")


calls = itertools.count()

MUTANTS = {
    "epochs": (declare(lambda x: x.mean(0)), "shape"),
    "one number": (declare(lambda x: x[:, -1].mean()), "shape"),
    "integers": (declare(lambda x: last(x).nan_to_num(0).long()), "floating-point"),
    "list": (declare(lambda x: last(x).tolist()), "floating-point"),
    "no score": (declare(lambda x: {"value": last(x)}), "no score"),
    "unobserved are easy": (declare(lambda x: last(x).nan_to_num(0)), "should have NaN"),
    "unobserved are hard": (declare(lambda x: last(x).nan_to_num(torch.inf)), "should have NaN"),
    "unobserved in a column": (declare(lambda x: {"score": last(x), "more": torch.zeros(x.shape[2])}), "more of"),
    "no number": (declare(lambda x: torch.where(last(x) > 1, torch.nan, last(x))), "NaN"),
    "no number of features": (of_features(lambda f, y: by_class(f, y) * torch.tensor(torch.nan)), "observed is NaN"),
    "depends on others": (declare(lambda x: last(x) - last(x).nanmean()), "at a time"),
    "depends on the order": (declare(lambda x: last(x) + torch.arange(x.shape[2]) / 100), "move with"),
    "positions of features": (of_features(lambda f, y: by_class(f, y) + torch.arange(len(y))), "move with"),
    "changes its input": (declare(lambda x: x.clamp_(max=1)[:, -1].mean(0)), "it changes loss"),
    "has a memory": (declare(lambda x: last(x) + next(calls)), "same call"),
    "draws": (declare(lambda x: last(x) + torch.rand(x.shape[2])), "same call"),
    "reads labels": (declare(lambda e, y: e[:, -1].mean(0) + y, reads=("entropy", "labels"), labels=False), "labels"),
    "reads what needs labels": (declare(last, labels=False), "NaN|labels"),
    "fails": (declare(lambda x: x[:, 10_000]), "it raises IndexError"),
    "refuses": (declare(refuse), "it raises ValueError: no"),
    "fails on a short record": (declare(lambda x: x[:, 5].mean(0)), "it raises IndexError.*E = 3"),
    "undeclared": (last, "not declared"),
    "row by row": (of_features(lambda f, y: torch.tensor([float(f[i].sum()) for i in range(len(f))])), "slices"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_breaks_the_contract_fails_the_check(name):
    mutant, message = MUTANTS[name]
    with pytest.raises(AssertionError, match=message):
        check_scorer(mutant)


def test_what_a_scorer_may_say_of_itself():
    about = {"hard": "high", "labels": False, "paper": "", "cost": ""}
    with pytest.raises(ValueError, match="'dynamic'; did you mean 'dynamics'"):
        scorer("mine", needs="dynamic", reads=[], **about)
    with pytest.raises(ValueError, match="'entrpy'; did you mean 'entropy'"):
        scorer("mine", needs="dynamics", reads=["entrpy"], **about)
    with pytest.raises(ValueError, match="calls hard 'up'"):
        scorer("mine", needs="nothing", reads=[], **about | {"hard": "up"})
    for kind in RECORDED:
        scorer("mine", needs=kind, reads=[*RECORDED[kind], "ids"], **about)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package of someone else, with a scorer of its own, and one that says nothing of itself."""
    module = """
from kdprune.scorers.common.scorer import scorer

@scorer("flips", needs="dynamics", reads=["correct"], hard="high", labels=True, paper="theirs", cost="one training")
def flips(correct_REN, first: int = 0):
    if not 0 <= first < correct_REN.shape[1]:
        raise ValueError("first must be an epoch")
    changed = correct_REN[:, first:].diff(dim=1).abs()
    return changed.mean((0, 1)) if changed.shape[1] else correct_REN.mean((0, 1))

def silent(x):
    return x
"""
    points = "flips = their_scorers:flips\nsilent = their_scorers:silent"
    install(monkeypatch, tmp_path, "their_scorers", module, {"scorers": points})


def test_a_scorer_of_another_package_is_found_takes_parameters_and_is_checked(third_party):
    assert {"flips", "silent"} <= set(registry.names("scorers"))
    check_scorer("flips(first=2)")
    labels = Observation("dynamics", np.zeros(3, dtype=int), "print", (), {})
    for text, offered in [
        ("flips(frist=2)", "did you mean 'first'"),
        ("flips(1, 2)", "flips takes first"),
        ("silent", "scorer silent is not declared"),
    ]:
        with pytest.raises(ValueError, match=offered):
            score(text, labels)
    with pytest.raises(AssertionError, match="first must be an epoch"):
        check_scorer("flips(first=-1)")


# --- the page on scorers ----------------------------------------------------------------------------------------------

PAGE = (REPO / "docs" / "scorers.md").read_text()


def test_the_table_of_the_page_says_what_scorers_say_of_themselves():
    rows = re.findall(r"^\| \[`(\w+)`\]\(#([\w-]+)\) \| (\w+) \| (\w+) \| (\w+) \|", PAGE, re.MULTILINE)
    expected = {n: (d.needs, d.hard, "needed" if d.labels else "no") for n, d in ((n, declared(n)) for n in NAMES)}
    assert {name: tuple(said) for name, _, *said in rows} == expected
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {anchor for _, anchor, *_ in rows} <= anchors


def test_the_scorer_of_the_page_keeps_the_contract(tmp_path, monkeypatch):
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "@scorer" in block)
    install(monkeypatch, tmp_path, "of_the_page", code, {"scorers": "descent = of_the_page:descent"})
    check_scorer("descent(first=2)")
    assert declared("descent").reads == ("loss",)
    for kind, values in RECORDED.items():
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |")), "")
        missing = [value for value in values if f"`{value}`" not in row and "statistics of dynamics" not in row]
        assert not missing, kind
