"""Plug-ins by kind and name. Imports nothing heavy.

A kind of plug-in is a folder `kdprune/<kind>/` whose `__init__.py` says what one of them is called: `PLUGIN = "loss"`.
A built-in plug-in is one file: `kdprune/<kind>/<name>.py` holds the plug-in called `<name>` and registers it with
`@register("<kind>", "<name>")`. The names are therefore known without importing anything heavy. Third parties add a
plug-in with an entry point in the group `kdprune.<kind>`, or by calling `register` in their own code.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from kdprune import calls
from kdprune.messages import about, unknown

_ROOT = Path(__file__).parent


def find_kinds(package: Path) -> dict[str, str]:
    """The kinds of plug-ins in a package, by folder, and what one of each is called. Imports nothing."""
    found = {}
    for file in sorted(package.glob("*/__init__.py")):
        if marker := re.search(r'^PLUGIN = "(\w+)"', file.read_text(encoding="utf-8"), re.MULTILINE):
            found[file.parent.name] = marker[1]
    return found


KINDS = find_kinds(_ROOT)  # folder → what one is called

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


def read_call(kind: str, text: object, option: str) -> calls.Call:
    """A plug-in with its arguments as text, `random` or `window(start=0.5)`. Imports no plug-in.

    Raises:
        ValueError: no such text, or an unknown name; the message names the option that it was given with.
    """
    with about(option):
        call = calls.parse_call(text)
        check_name(kind, call.name)
    return call


def check_name(kind: str, name: str) -> None:
    """Refuse an unknown name without importing any plug-in."""
    _check_kind(kind)
    if name in _registered[kind] or name in _builtin(kind) or name in _entry_points(kind):
        return
    raise ValueError(unknown(KINDS[kind], name, names(kind)))


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(unknown("kind of plug-in", kind, KINDS))


@cache
def _builtin(kind: str) -> frozenset[str]:
    return frozenset(file.stem for file in (_ROOT / kind).glob("[!_]*.py"))


@cache
def _entry_points(kind: str) -> dict[str, EntryPoint]:
    """Looked up once: the scan reads the metadata of every installed package."""
    return {point.name: point for point in entry_points(group=f"kdprune.{kind}")}
