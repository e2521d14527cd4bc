"""Sizes of images and views: one number for a square, or height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Size: TypeAlias = "int | tuple[int, int]"


def size_of(given: int | Sequence[int]) -> Size:
    """A size in its one spelling: an int where it is a square, else (height, width), whatever it was given as."""
    if isinstance(given, int):
        return given
    height, width = given
    return height if height == width else (height, width)


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Both sides of a size, in pixels."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def written(size: int | Sequence[int]) -> str:
    """64 → '64', (48, 64) → '48×64'."""
    return str(size) if isinstance(size, int) else "×".join(map(str, size))
