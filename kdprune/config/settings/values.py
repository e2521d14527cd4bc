"""How a list is written as a value."""

from __future__ import annotations

from typing import Any


def as_list(value: Any) -> list[Any]:
    """None, one item, items joined by commas, or a list, as a list."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value)
