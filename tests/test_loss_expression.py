"""The language of losses: what it reads, what it refuses and how it says so."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune import registry
from kdprune.losses.common.expression import Term, parse

NAMES = registry.names("losses")


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("kd", [Term(1, "kd")]),
        (" kd + 100*attention_transfer ", [Term(1, "kd"), Term(100, "attention_transfer")]),
        ("dkd(alpha=1, beta=8)", [Term(1, "dkd", {"alpha": 1, "beta": 8})]),
        ("0.5*kd + logit_std(loss='dkd')", [Term(0.5, "kd"), Term(1, "logit_std", {"loss": "dkd"})]),
        ("1e-1*kd() + kd\n + 0*hard", [Term(0.1, "kd"), Term(1, "kd"), Term(0, "hard")]),
        ("fitnet(layers=[('a', 'b')])", [Term(1, "fitnet", {"layers": [("a", "b")]})]),
        (["kd", "100*attention_transfer"], [Term(1, "kd"), Term(100, "attention_transfer")]),
        (["kd + hard", {"name": "dist"}], [Term(1, "kd"), Term(1, "hard"), Term(1, "dist")]),
        ([{"name": "dkd", "weight": 2.5, "params": {"beta": 2}}], [Term(2.5, "dkd", {"beta": 2})]),
        ({"name": "kd", "params": None}, [Term(1, "kd")]),
    ],
)
def test_reads(expression, terms):
    assert parse(expression) == terms


number = st.floats(0, 1e6, allow_nan=False).filter(lambda x: x >= 0)
value = st.one_of(st.integers(-5, 5), number, st.text(max_size=5), st.lists(st.integers(), max_size=3), st.none())
key = st.sampled_from(["alpha", "beta", "loss", "layers"])
term = st.builds(Term, number, st.sampled_from(NAMES), st.dictionaries(key, value, max_size=3))


@settings(max_examples=50, deadline=None)
@given(st.lists(term, min_size=1, max_size=5))
def test_reads_back_what_it_would_write(terms):
    def write(term):
        return f"{term.weight!r}*{term.name}({', '.join(f'{k}={v!r}' for k, v in term.params.items())})"

    assert parse(" + ".join(write(term) for term in terms)) == terms
    assert parse([{"name": t.name, "weight": t.weight, "params": t.params} for t in terms]) == terms


@pytest.mark.parametrize("text", ["", "kd - hard", "kd*2", "2*3*kd", "2*(kd + hard)", "kd(4)", "kd*hard", "2", "kd +"])
def test_what_is_no_weighted_sum_of_losses_is_quoted(text):
    with pytest.raises(ValueError, match=r"^--distill\.loss: cannot read") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("weight", [-1, 1e999, True, "2", None, 10**400, float("nan")])
def test_impossible_weights(weight):
    with pytest.raises(ValueError, match="weight of loss 'kd'"):
        parse({"name": "kd", "weight": weight})
    with pytest.raises(ValueError, match=r"^--distill\.loss: "):
        parse(f"{weight!r}*kd")


@pytest.mark.parametrize(
    "expression", ["attention_tranfer", ["kd", "attention_tranfer"], {"name": "attention_tranfer"}]
)
def test_unknown_names_come_with_the_nearest(expression):
    with pytest.raises(ValueError, match="did you mean 'attention_transfer'"):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ([], "may not be empty"),
        (3, "a loss is a text"),
        (None, "a loss is a text"),
        ([["kd", 3]], "a loss is a text"),
        ({"weight": 2}, "needs a name"),
        ({"name": "kd", "wieght": 2}, "did you mean 'weight'"),
        ({"name": "kd", "params": [1]}, "must be a mapping"),
        ({"name": ["kd"]}, "needs a name"),
        ({"name": "kd", "params": {1: 2}}, "must be a mapping"),
    ],
)
def test_bad_lists_and_mappings(expression, message):
    with pytest.raises(ValueError, match=message):
        parse(expression)


def test_lists_that_hold_themselves_are_refused():
    loop = ["kd"]
    loop.append(loop)
    with pytest.raises(ValueError, match="a loss is a text"):
        parse(loop)


def test_a_long_sum_is_no_trouble():
    assert len(parse(" + ".join(["kd"] * 200))) == 200


def test_reading_imports_no_torch():
    code = "from kdprune.losses.common.expression import parse; parse('kd + 2*dkd')"
    subprocess.run([sys.executable, "-c", f"{code}; import sys; assert 'torch' not in sys.modules"], check=True)
