"""What jsonargparse says of a mistake, said again for the person who typed: given, allowed, nearest name."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kdprune.config import Config

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}


def explain(message: str, options: Sequence[str]) -> str:
    """One line for a person; a message that is not known is handed through.

    Args:
        message: of jsonargparse.
        options: all that the parser has, with their dashes.
    """
    if match := re.match(r'Parser key "([\w.]+)":', message):
        return _wrong_value(match[1], message)
    if match := re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_setting(f"{match[1]}.{match[2]}", options)
    if match := re.match(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_setting(match[1], options)
    if match := re.match(r"argument (--[\w.]+): expected one argument", message):
        return f"{match[1]}: a value must follow"
    if match := re.match(r"unrecognized arguments: (.*)", message):
        return message + _hint_for_words(match[1], options)
    return message


def _wrong_value(name: str, message: str) -> str:
    given = re.findall(r"(?:Got|Given) value: (.*)", message)
    kind = _type_of(name)
    if kind is None or not given:
        return f"--{name}: " + " ".join(message.partition(":")[2].split())
    return f"--{name}: {given[-1]!r} given, allowed is {_in_words(kind)}{_nearest(given[-1], _choices(kind))}"


def _type_of(name: str) -> Any:
    """The type of a setting; None where there is no such one."""
    kind: Any = Config
    for part in name.split("."):
        kind = get_type_hints(kind).get(part) if isinstance(kind, type) else None
    return None if hasattr(kind, "__dataclass_fields__") else kind


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_in_words(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list of {_in_words(get_args(kind)[0]).removeprefix('a ')}s, such as [A, B]"
    return _WORDS.get(kind, str(kind))


def _choices(kind: Any) -> list[str]:
    return [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []


def _unknown_setting(name: str, options: Sequence[str]) -> str:
    return f"unknown setting {name!r}{_nearest(name, [option.removeprefix('--') for option in options])}"


def _hint_for_words(words: str, options: Sequence[str]) -> str:
    first = words.split()[0].partition("=")[0]
    if not first.startswith("-"):
        return "; several values of one option are given as A,B"
    return _nearest(first, options)


def _nearest(given: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    return f"; did you mean {near[0]}?" if near else ""
