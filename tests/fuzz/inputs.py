"""Inputs of a fuzzer: valid files with some bytes or some values changed, and garbage that has the form of the real."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("KDPRUNE_FUZZ_EXAMPLES", "60"))

fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)  # as many inputs of each target as the environment says

STRANGE = st.sampled_from(
    [None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
     "a\0b", "../x", "/dev/zero", "x" * 300, "\x1b[2J", "é", [], {}, [[]], {"": None}, [[[[]]]], ["a"], [1, "a"],
     {"a": {"b": [{}]}}]
)  # fmt: skip
VALUES = st.recursive(
    STRANGE | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def accepts(read: Callable[[], Any], *errors: type[Exception]) -> None:
    """Read; what is refused is refused in words, by one of the errors that the reader documents."""
    try:
        read()
    except (ValueError, *errors) as error:
        assert str(error), repr(error)  # noqa: PT017
        assert len(str(error)) < 10_000  # noqa: PT017


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """JSON values of which some are replaced, taken away, or have another beside them."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        place, steps = content, draw(st.integers(0, 3))
        for _ in range(steps):
            inner = [
                v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, dict | list) and v
            ]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        if not place:
            continue
        key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else draw(st.integers(0, len(place) - 1))
        what = draw(st.integers(0, 3))
        if what == 0:
            del place[key]
        elif what == 1 and isinstance(place, dict):
            place[draw(st.text(max_size=8))] = copy.deepcopy(draw(VALUES))
        else:
            place[key] = copy.deepcopy(draw(VALUES))  # it may be changed again, and drawn again
    return draw(VALUES) if draw(st.integers(0, 30)) == 0 else content


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are flipped, cut out, repeated or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        start = draw(st.integers(0, len(data) - 1))
        end = min(len(data), start + draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64, 10**9])))
        what = draw(st.integers(0, 4))
        if what == 0:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif what == 1:
            del data[start:end]
        elif what == 2:
            data[start:start] = data[start:end][:1000]
        elif what == 3:
            data[start:end] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))]) * min(64, end - start)
        else:
            data[start:start] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


def written(words: list[str]) -> st.SearchStrategy[str]:
    """Texts of a little language: its words and signs in any order, and changes of a valid text."""
    signs = [*"()[]{},=+-*:'\". \n\\_\0#@~/é", "1", "0.5", "1e9", "1e999", "-1", "0x1", "1_0", "9" * 400]
    signs += ["None", "True", "nan", "inf", "(" * 30, " " * 50]
    tokens = st.lists(st.sampled_from([*words, *signs]), max_size=12).map("".join)
    valid = (
        st.sampled_from(words).flatmap(lambda word: damaged(word.encode())).map(lambda b: b.decode("utf-8", "replace"))
    )
    return tokens | valid | st.text(max_size=30)
