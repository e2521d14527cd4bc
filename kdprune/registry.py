"""Plug-ins by kind and name.

A built-in plug-in is one file: `kdprune/<kind>/<name>.py` holds the plug-in called `<name>` and registers it with
`@register("<kind>", "<name>")`. The names are therefore known without importing anything heavy. Third parties add a
plug-in with an entry point in the group `kdprune.<kind>`, or by calling `register` in their own code.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

KINDS = ("losses", "scorers", "selectors")

_registered: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}

T = TypeVar("T")


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class or function decorator: make the decorated object known as `name` among the plug-ins of `kind`."""
    _check_kind(kind)

    def keep(plugin: T) -> T:
        known = _registered[kind].setdefault(name, plugin)
        if known is not plugin and known.__module__ != plugin.__module__:
            raise ValueError(f"{kind}: {name!r} is already registered by {known.__module__}")
        _registered[kind][name] = plugin
        return plugin

    return keep


def names(kind: str) -> list[str]:
    """All names of `kind`: built in, from entry points and registered by hand. Imports no plug-in."""
    _check_kind(kind)
    return sorted({*_builtin(kind), *_entry_points(kind), *_registered[kind]})


def get(kind: str, name: str) -> Any:
    """The plug-in `name` of `kind`, imported when first asked for.

    Raises:
        ValueError: no such plug-in; the message lists what there is and the nearest name.
    """
    check_name(kind, name)
    if name not in _registered[kind]:
        if name in _builtin(kind):
            importlib.import_module(f"kdprune.{kind}.{name}")
        else:
            register(kind, name)(_entry_points(kind)[name].load())
    return _registered[kind][name]


def check_name(kind: str, name: str) -> None:
    """Refuse an unknown name without importing any plug-in."""
    if name not in names(kind):
        raise ValueError(unknown(f"{kind[:-2] if kind == 'losses' else kind[:-1]}", name, names(kind)))


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """An error message for a wrong name: what was given, the nearest valid name, all that are allowed."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {given!r}{hint} (allowed: {', '.join(allowed)})"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(unknown("kind of plug-in", kind, KINDS))


def _builtin(kind: str) -> list[str]:
    folder = Path(__file__).parent / kind
    return [file.stem for file in folder.glob("[!_]*.py")]


def _entry_points(kind: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=f"kdprune.{kind}")}
