"""What jsonargparse says of a mistake, said again for the person who typed: given, allowed, nearest name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kdprune.config import Config
from kdprune.messages import did_you_mean, wrong_value
from kdprune.typed import types_of


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
    return wrong_value(f"--{name}", given[-1], kind)


def _type_of(name: str) -> Any:
    """The type of a setting; None where there is no such one."""
    kind: Any = Config
    for part in name.split("."):
        kind = types_of(kind).get(part) if isinstance(kind, type) else None
    return None if hasattr(kind, "__dataclass_fields__") else kind


def _unknown_setting(name: str, options: Sequence[str]) -> str:
    hint = did_you_mean(name, [option.removeprefix("--") for option in options], write=str)
    return f"unknown setting {name!r}{hint}"


def _hint_for_words(words: str, options: Sequence[str]) -> str:
    first = words.split()[0].partition("=")[0]
    if not first.startswith("-"):
        return "; several values of one option are given as A,B"
    return did_you_mean(first, options, write=str)
