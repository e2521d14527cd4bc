"""The grammar of calls: what it reads, what it refuses, and that it answers at once whatever it is given."""

import inspect
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdprune import alpha, calls
from kdprune.calls import Call, bind, parse, parse_call
from kdprune.data import recipe
from kdprune.losses.common import expression

names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
# A sign before a number is no part of it, so that None of these is negative zero.
numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats(-1e300, 1e300).filter(lambda x: x or str(x) == "0.0"))
plain = st.one_of(numbers, st.booleans(), st.none(), st.text(max_size=8))
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
called = st.builds(
    Call, names, st.lists(values, max_size=3).map(tuple), st.dictionaries(names, values, max_size=3)
)  # fmt: skip
products = st.lists(st.one_of(numbers, called), min_size=1, max_size=3).map(tuple)


def write(sum_of_products, space=""):
    return f"{space}+{space}".join(f"{space}*{space}".join(map(str, product)) for product in sum_of_products)


@given(st.lists(products, min_size=1, max_size=4), st.sampled_from(["", " ", "\n"]))
def test_what_is_written_is_read_back(terms, space):
    assert parse(write(terms, space)) == terms
    assert parse(f"({write(terms)})") == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("kd", [(Call("kd"),)]),
        ("crop( 4 ) + flip()", [(Call("crop", (4,)),), (Call("flip"),)]),
        ("0.5*kd + dkd(alpha=1, beta=8,)", [(0.5, Call("kd")), (Call("dkd", (), {"alpha": 1, "beta": 8}),)]),
        ("linear(1.0, -.5)*warmup(1e-1)", [(Call("linear", (1.0, -0.5)), Call("warmup", (0.1,)))]),
        ("f(layers=[('a.b', 'c+d')])", [(Call("f", (), {"layers": [("a.b", "c+d")]}),)]),
        ("f({'k': {1, 2}}, None)", [(Call("f", ({"k": {1, 2}}, None)),)]),
        ("1_000*((a)) + (b + 2*(c))", [(1000, Call("a")), (Call("b"),), (2, Call("c"))]),
    ],
)  # fmt: skip
def test_reads(text, terms):
    assert parse(text) == terms


REFUSED = [
    "", "a +", "a - b", "-a", "a b", "2*(a + b)", "a(**{})", "a(*b)", "a(x)", "a(x.y)", "a(f(1))", "a(1 + 2)",
    "a(x=__import__('os').getpid())", "a(x=1, x=2)", "a(x=1, 2)", "a()()", "a[1]", "x.a", "a; b", "a # b", "'a'",
    "a\0", "True", "a(--1)", "a(1j)", "a(01)", "a(1.2.3)", "a('x)", "a([1)", "a)", "a(lambda: 1)", "a([1][0])",
    "a(nan)", "a(inf)", "a(1e999)", f"a({'9' * 400})", f"{'9' * 400}*a", "1e999*a", r"a('\d')",
]  # fmt: skip


def test_everything_else_is_refused_and_quoted():
    for text in REFUSED:
        with pytest.raises(ValueError, match="cannot read") as caught:
            parse(text)
        assert repr(text)[:100] in str(caught.value)
    for no_text in (None, 3, 0.5, b"a", ["a"], Call("a")):
        with pytest.raises(ValueError, match="text"):
            parse(no_text)


# --- hostile texts ----------------------------------------------------------------------------------------------------

READERS = [parse, parse_call, expression.parse, alpha.parse, alpha.search, recipe.parse]
HOSTILE = [
    "(" * 30_000, "[" * 30_000, "a(" * 3_000, "a(" + "[" * 9_990, "((((" * 200 + "a", "crop(" + " " * 3_000,
    "crop(" + " " * 9_000 + "x", "a(x=" + "-" * 9_000 + "1)", "a(" + "not " * 2_000 + "1)", "1*" * 4_999 + "a",
    "a+" * 4_999 + "a", "a(" + "[]" * 4_000 + ")", "a('" + "\\" * 9_000, "'" * 9_999, "9" * 9_999, "1e" * 4_999,
    "a(" + "1," * 4_900 + ")", ")" * 100 + "(" * 120, "a(x=" + "]" * 100 + "[" * 120, "{" * 20 + "}" * 21, "a" * 10**7,
    "a*" * 4_000, " " * 10_000, "search(" + "[" * 5_000, "search" + "(" * 9_000,
]  # fmt: skip


def in_time(reader, text):
    """Only `ValueError`, only at once, and only a message that can be read."""
    start, said = time.perf_counter(), ""
    try:
        reader(text)
    except ValueError as error:
        said = str(error)
    assert time.perf_counter() - start < 10  # what it guards against takes minutes
    assert len(said) < 3_000


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: f"{reader.__module__}.{reader.__name__}")
def test_hostile_texts_are_answered_at_once(reader):
    for text in HOSTILE:
        in_time(reader, text)


@given(st.text() | st.text("ab1.e+-*()[]{},=:'\"\\ \n", max_size=80))
@example("kd(a='\ud800')")
def test_random_texts_raise_nothing_but_value_errors(text):
    for reader in READERS:
        in_time(reader, text)


# --- arguments --------------------------------------------------------------------------------------------------------


def function(pool, start, step=1, *, seed=0):
    """A plug-in whose first parameter is supplied by the caller."""


def test_arguments_are_bound_by_name():
    def bound(text, **more):
        return bind(parse_call(text), function, "selector", supplied=1, **more)

    assert bound("f(5)") == {"start": 5}
    assert bound("f(5, step=2, seed=3)") == {"start": 5, "step": 2, "seed": 3}
    assert bound("f(start=5)", defaults={"seed": 7, "start": 1, "other": 2}) == {"start": 5, "seed": 7}
    assert bind(Call("f", (), {"any": 1}), lambda **rest: None, "loss") == {"any": 1}
    assert bind(Call("f", (1,)), inspect.signature(lambda a: None), "loss") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f", "start"),
        ("f(1, 2, 3)", "start, step, seed"),
        ("f(1, start=2)", "'start'"),
        ("f(pool=1)", "'pool'"),
        ("f(1, sede=2)", "did you mean 'seed'"),
    ],
)
def test_wrong_arguments(text, said):
    with pytest.raises(ValueError, match="selector f") as caught:
        bind(parse_call(text), function, "selector", supplied=1)
    assert said in str(caught.value)
    assert calls.parse(text)  # the text itself can be read
