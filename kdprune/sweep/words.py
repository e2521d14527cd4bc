"""What the command line says of a study, as the study file would say it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from kdprune.messages import about
from kdprune.yaml_text import BeyondBounds, YamlError, parse_yaml

_AXES = ("grid", "zip", "tune")
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""


def sections_of(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--grid.NAME VALUES`, `--zip.…`, `--tune.…`, `--arms.NAME SETTINGS` and `--exclude COORDINATES` out.

    Returns:
        the other words; sections as a study file has them.

    Raises:
        ValueError: an option without its value, or given twice.
    """
    rest: list[str] = []
    sections: dict[str, Any] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        option, equals, text = word.partition("=")
        section, dot, name = option.removeprefix("--").partition(".")
        is_axis = bool(name) and section in (*_AXES, "arms")
        if not option.startswith("--") or not (is_axis or (section == "exclude" and not dot)):
            rest.append(word)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ValueError(f"{option}: a value must follow")
            text = waiting.pop(0)
        with about(option):
            if section == "exclude":
                sections.setdefault("exclude", []).append(settings_of(text))
                continue
            named = sections.setdefault(section, {})
            if name in named:
                raise ValueError("given twice; values of one axis are given as A,B")
            named[name] = settings_of(text) if section == "arms" else values_of(text)
    return rest, sections


def values_of(text: str) -> list[Any]:
    """'0.1,0.2' → [0.1, 0.2]; commas in brackets part nothing, and a single list in brackets is the list of values."""
    parts = [_yaml(part) for part in split(text, ",")]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], list) else parts


def settings_of(text: str) -> dict[str, Any]:
    """'distill.alpha=0.5 distill.loss=kd' → the settings by name."""
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise ValueError(f"{text!r} given: {error}") from None
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"{wrong[0]!r} given, allowed are NAME=VALUE, several of them parted by blanks")
    return {name: _yaml(value) for name, _, value in pairs}


def split(text: str, mark: str) -> list[str]:
    """Part a text at a mark that stands outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        depth += 0 if quote else (letter in _OPENING) - (letter in _CLOSING)
        if letter == mark and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text)
    except BeyondBounds:
        raise
    except YamlError:
        return text  # as a setting in brackets of its own, such as a selector's
