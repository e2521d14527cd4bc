"""The arguments of selectors, checked."""

from __future__ import annotations

import math

from kdprune.messages import shown


def check_number(what: str, value: object, low: float, high: float, ends: str = "[]") -> float:
    """A number between `low` and `high`; `ends` says, as intervals are written, which of them belong to it.

    Raises:
        ValueError: with what was given and what is allowed.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if fits:
        above = value >= low if ends[0] == "[" else value > low  # type: ignore[operator]
        below = value <= high if ends[1] == "]" else value < high  # type: ignore[operator]
        fits = above and below
    if not fits:
        top = f"{high:g}{ends[1]}" if math.isfinite(high) else "∞)"
        raise ValueError(f"{what}: {shown(value)} given, allowed is a number in {ends[0]}{low:g}, {top}")
    return value  # type: ignore[return-value]


def at_most(value: float) -> str:
    """A bound as it is written in a message: rounded down, so that what is written is allowed."""
    return f"at most {math.floor(value * 1e6) / 1e6:.6f}".rstrip("0").rstrip(".")


def at_least(value: float) -> str:
    """A bound as it is written in a message: rounded up."""
    return f"at least {math.ceil(value * 1e6) / 1e6:.6f}".rstrip("0").rstrip(".")


def check_whole(what: str, value: object, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`.

    Raises:
        ValueError: with what was given and what is allowed.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{what}: {shown(value)} given, allowed is a whole number {allowed}")
    return value  # type: ignore[return-value]
