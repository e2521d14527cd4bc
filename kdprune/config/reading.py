"""Settings from the nested dictionaries that YAML and JSON hold."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from kdprune.config.settings import Config
from kdprune.messages import shown, unknown
from kdprune.typed import typed, types_of


def from_dict(content: dict[str, Any]) -> Config:
    """The configuration that `to_dict` was given.

    Raises:
        ValueError: an unknown name, or a value of another type than the setting's; the message names the option.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{shown(content)} given, allowed are settings by name")
    return _build(Config, content)


def _build(kind: Any, content: dict[str, Any], group: str = "") -> Any:
    known = {f.name: f for f in fields(kind)}
    if wrong := [name for name in content if name not in known]:
        raise ValueError(unknown("setting", wrong[0], known))
    values: dict[str, Any] = {}
    for name, value in content.items():
        factory, option = known[name].default_factory, f"{group}{name}"
        if is_dataclass(factory):
            if not isinstance(value, dict):
                raise ValueError(f"{option}: {shown(value)} given, allowed are settings by name")
            values[name] = _build(factory, value, f"{option}.")
        elif value is None and factory is list:
            values[name] = []  # null is no item
        else:
            values[name] = typed(f"--{option}", value, types_of(kind)[name])
    return kind(**values)
