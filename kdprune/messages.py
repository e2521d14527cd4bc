"""The wording of mistakes: what was given, what is allowed, the nearest valid name. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import difflib
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Union, get_args, get_origin

SHOWN = 300  # characters of a value that a message repeats
_WORDS = {
    float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null",
    dict: "a mapping", Any: "anything",
}  # fmt: skip


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """An error message for a wrong name: what was given, the nearest valid name, all that are allowed."""
    allowed = list(allowed)
    hint = did_you_mean(given, allowed)
    return f"unknown {what} {shown(given)}{hint} (allowed: {', '.join(allowed) or 'none'})"


def did_you_mean(given: object, allowed: Iterable[str], most: int = 1, write: Callable[[str], str] = repr) -> str:
    """A hint for the middle of a message, with the valid names nearest to `given`; empty if none is near.

    Args:
        given: what was typed.
        allowed: valid names.
        most: how many to offer.
        write: how a name is written in the hint.
    """
    near = difflib.get_close_matches(str(given), list(allowed), n=most)
    return f"; did you mean {' or '.join(map(write, near))}?" if near else ""


def shown(given: object) -> str:
    """`repr(given)`, cut where it is too long to be read."""
    text = repr(given)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters)"


def listed(items: Any, most: int = 10) -> str:
    """The first items of a sequence or array, joined by commas."""
    return ", ".join(map(str, items[:most])) + (" …" if len(items) > most else "")


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 sample", "1,347 samples", "2 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


@contextlib.contextmanager
def about(option: str) -> Iterator[None]:
    """Put the option in front of every `ValueError` that is raised inside, once."""
    try:
        yield
    except ValueError as error:
        if not option or str(error).startswith(f"{option}: "):
            raise
        raise ValueError(f"{option}: {error}") from None


def wrong_value(option: str, given: str, kind: Any) -> str:
    """The message for a value that is not of the type `kind`."""
    return f"{option}: {shown(given)} given, allowed is {in_words(kind)}{did_you_mean(given, choices(kind), write=str)}"


def in_words(kind: Any) -> str:
    """A type annotation for a person: 'a whole number or null'."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of {_plural(get_args(kind)[0])}, such as [A, B]"
    return _WORDS.get(get_origin(kind) or kind, str(kind))


def choices(kind: Any) -> list[str]:
    """The values that a `Literal` allows, also one inside a union; empty for any other type."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [choice for part in get_args(kind) for choice in choices(part)]


def _plural(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_plural(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return f"lists of {_plural(get_args(kind)[0])}"
    return f"{in_words(kind).removeprefix('a ')}s"
