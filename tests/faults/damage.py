"""What can have happened to a file."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path


def truncated(path: Path, draw: random.Random, other: list[Path]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))] if content else b"")


def flipped(path: Path, draw: random.Random, other: list[Path]) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def emptied(path: Path, draw: random.Random, other: list[Path]) -> None:
    path.write_bytes(b"")


def replaced(path: Path, draw: random.Random, other: list[Path]) -> None:
    """By a file of the same name, or else of the same kind, of another run."""
    same = [candidate for candidate in other if candidate.name == path.name]
    alike = same or [candidate for candidate in other if candidate.suffix == path.suffix] or other
    path.write_bytes(draw.choice(alike).read_bytes())


def swapped(path: Path, draw: random.Random, other: list[Path]) -> None:
    """By any file at all."""
    path.write_bytes(draw.choice(other).read_bytes())


def noise(path: Path, draw: random.Random, other: list[Path]) -> None:
    path.write_bytes(draw.randbytes(path.stat().st_size))


def removed(path: Path, draw: random.Random, other: list[Path]) -> None:
    path.unlink()


def a_folder(path: Path, draw: random.Random, other: list[Path]) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random, list[Path]], None]] = {
    "truncated": truncated, "flipped": flipped, "emptied": emptied, "of another run": replaced, "swapped": swapped,
    "noise": noise, "removed": removed, "a folder": a_folder,
}  # fmt: skip
