"""The grammar of `name(arguments)`, which losses, α policies, views, selectors and scorers are written in.

    sum      = product { "+" product }
    product  = factor { "*" factor }
    factor   = number | call | "(" sum ")"
    call     = name [ "(" [ argument { "," argument } ] ")" ]
    argument = [ name "=" ] value

A value is a Python literal: a number, a quoted text, True, False, None, or a list, tuple, set or dict of values.
Nothing is ever evaluated. Each user of the grammar allows a part of it, such as a single call. Imports nothing heavy.

Texts come from anywhere, so what is read is bounded first: its length, its brackets, and its tokens, which one linear
regular expression finds. Python's own parser only ever sees single literals, because thousands of nested brackets or
signs would crash it.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from kdprune.messages import shown, unknown

LONGEST = 10_000  # characters
DEEPEST = 20  # nested brackets

_OPEN, _CLOSE = ("(", "[", "{"), (")", "]", "}")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:\d|\.\d)(?:[eE][+-](?=\d)|[\w.])*)     # judged later; '1.2.3' is one wrong number, not two
      | (?P<name>[^\W\d]\w*)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<sign>[-+*(),=:\[\]{}])""",
    re.VERBOSE,
)
_CONSTANTS = ("True", "False", "None")


@dataclass(frozen=True)
class Call:
    """`name(*args, **kwargs)`, as written."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        written = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join(written)})" if written else self.name


Factor: TypeAlias = "float | Call"
Product: TypeAlias = "tuple[Factor, ...]"


def parse(text: object) -> list[Product]:
    """Read a sum of products of numbers and calls; a group in brackets may hold a sum only where it stands alone.

    Raises:
        ValueError: no text, too long, nested too deep, or not in the grammar; the message quotes what was given.
    """
    if not isinstance(text, str):
        raise ValueError(f"{shown(text)} given, allowed is text")
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters given ({shown(text[:20])} …), allowed are {LONGEST:,}")
    reader = _Reader(text)
    products = reader.sum()
    if reader.peek():
        raise reader.wrong()
    return products


def parse_call(text: object) -> Call:
    """Read a single call, `name` or `name(arguments)`.

    Raises:
        ValueError: as `parse` does, or there is more than one call.
    """
    products = parse(text)
    if len(products) != 1 or len(products[0]) != 1 or not isinstance(products[0][0], Call):
        raise ValueError(f"{shown(text)} given, allowed is NAME or NAME(ARGUMENTS)")
    return products[0][0]


def bind(
    call: Call,
    function: Callable[..., Any] | inspect.Signature,
    what: str,
    *,
    supplied: int = 0,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments of a call by the names of a function's parameters.

    Args:
        call: what was written.
        function: what it will be handed to, or its signature.
        what: what a message calls it, such as "loss".
        supplied: leading parameters that the caller supplies himself, so that they cannot be written.
        defaults: values for parameters that the call leaves open, where the function has them.

    Raises:
        ValueError: an unknown parameter (with the nearest known one), one given twice, too many, or a missing one.
    """
    signature = function if isinstance(function, inspect.Signature) else inspect.signature(function)
    parameters = list(signature.parameters.values())[supplied:]
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    ordered = [p.name for p in named.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(call.args) > len(ordered):
        takes = f"takes {', '.join(named)}" if named else "takes no parameters"
        raise ValueError(f"{what} {call.name} {takes}; {len(call.args)} values given: {shown(str(call))}")
    values = dict(zip(ordered, call.args, strict=False))
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name, value in call.kwargs.items():
        if name not in named and not takes_any:
            raise ValueError(unknown(f"parameter of {what} {call.name}", name, named))
        if name in values:
            raise ValueError(f"{what} {call.name}: {name!r} is given twice in {shown(str(call))}")
        values[name] = value
    values = {name: value for name, value in (defaults or {}).items() if name in named} | values
    missing = [p.name for p in named.values() if p.default is p.empty and p.name not in values]
    if missing:
        raise ValueError(f"{what} {call.name} needs {', '.join(missing)}; {shown(str(call))} given")
    return values


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN; for a sign, the sign itself
    text: str
    start: int
    end: int


class _Reader:
    """Recursive descent over the tokens of a text; its depth is bounded by that of the brackets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.tokens: list[_Token] = []
        self.tokens = self._tokens()

    def sum(self) -> list[Product]:
        products = self.product()
        while self.take("+"):
            products += self.product()
        return products

    def product(self) -> list[Product]:
        """One product, or all those of a bracketed sum."""
        first = self.factor()
        while self.take("*"):
            second = self.factor()
            if len(first) > 1 or len(second) > 1:
                raise self.wrong("a sum in brackets cannot be multiplied")
            first = [(*first[0], *second[0])]
        return first

    def factor(self) -> list[Product]:
        if self.take("("):
            products = self.sum()
            self.expect(")")
            return products
        sign = self.take("-") or self.take("+")
        if number := self.take("number"):
            value = self.number(number)
            return [(-value if sign and sign.kind == "-" else value,)]
        name = None if sign else self.take("name")
        if name is None or name.text in _CONSTANTS:
            raise self.wrong(token=name or self.peek())
        return [(self.call(name.text),)]

    def call(self, name: str) -> Call:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if self.take("("):
            while not self.take(")"):
                keyword = self.keyword()
                value = self.value()
                if keyword is None and kwargs:
                    raise self.wrong(f"{shown(value)} must stand before name=value")
                if keyword in kwargs:
                    raise self.wrong(f"{keyword!r} is given twice")
                if keyword is None:
                    args.append(value)
                else:
                    kwargs[keyword] = value
                if not self.take(","):
                    self.expect(")")
                    break
        return Call(name, tuple(args), kwargs)

    def keyword(self) -> str | None:
        following = self.tokens[self.place : self.place + 2]
        if [token.kind for token in following] != ["name", "="]:
            return None
        self.place += 2
        return following[0].text

    def value(self) -> Any:
        """The literal up to the comma or bracket that ends it."""
        first, depth = self.place, 0
        while (token := self.peek()) and (depth or token.kind not in (",", ")")):
            self.check_literal(token)
            depth += (token.kind in _OPEN) - (token.kind in _CLOSE)
            self.place += 1
        if self.place == first:
            raise self.wrong()
        source = self.text[self.tokens[first].start : self.tokens[self.place - 1].end]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an escape that is none, such as '\d'
                return ast.literal_eval(source.replace("\n", " "))
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, Warning):
            raise self.wrong(f"{shown(source)} is not a plain value (text stands in quotes)") from None

    def check_literal(self, token: _Token) -> None:
        """Refuse what no literal holds, before Python's parser sees it."""
        if token.kind == "number":
            self.number(token)
        if token.kind == "name" and token.text not in _CONSTANTS:
            raise self.wrong(f"{shown(token.text)} is not a plain value (text stands in quotes)")
        following = self.tokens[self.place + 1 : self.place + 2]
        before = self.tokens[self.place - 1].kind
        opens = token.kind in _OPEN or token.kind in ("-", "+")
        if token.kind in ("*", "=") or (opens and before not in (*_OPEN, ",", "=", ":")):
            raise self.wrong(token=token)
        if token.kind in ("-", "+") and (not following or following[0].kind != "number"):
            raise self.wrong(token=token)

    def number(self, token: _Token) -> float:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # '1if' is about to become an error
                value = ast.literal_eval(token.text)
            # Whole numbers beyond the largest float overflow in arithmetic with floats.
            fits = isinstance(value, int | float) and math.isfinite(float(value))
        except (SyntaxError, ValueError, OverflowError, Warning):
            fits = False
        if not fits:
            raise self.wrong(f"{shown(token.text)} is not a finite number")
        return value

    def peek(self) -> _Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self, kind: str) -> _Token | None:
        token = self.peek()
        if token is None or token.kind != kind:
            return None
        self.place += 1
        return token

    def expect(self, kind: str) -> None:
        if not self.take(kind):
            raise self.wrong()

    def wrong(self, why: str = "", token: _Token | None = None) -> ValueError:
        token = token or self.peek()
        if not why:
            why = f"{shown(token.text)} at character {token.start + 1} is out of place" if token else "it ends early"
        return ValueError(f"cannot read {shown(self.text)}: {why}")

    def _tokens(self) -> list[_Token]:
        tokens: list[_Token] = []
        place, depth = 0, 0
        while place < len(self.text):
            match = _TOKEN.match(self.text, place)
            if match is None:
                raise self.wrong(token=_Token("", self.text[place], place, place + 1))
            kind = match[0] if match["sign"] else str(match.lastgroup)
            token = _Token(kind, match[0], match.start(), match.end())
            depth += (kind in _OPEN) - (kind in _CLOSE)
            if depth > DEEPEST:
                raise self.wrong(f"more than {DEEPEST} brackets are open")
            if depth < 0:
                raise self.wrong(token=token)
            if kind != "space":
                tokens.append(token)
            place = match.end()
        return tokens
