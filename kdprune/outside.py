"""Files of others: anybody may have written them, so each is read within bounds and judged before it is believed.

Only regular files are opened, because a pipe or a device may never end; no more is read than a file of its kind can
hold; and texts are not nested deeper than a reader of them can follow. What they say is then compared with what the
file should hold, by name: `check_fields`. Every refusal is a `ValueError` that begins with the path.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kdprune.messages import shown

LARGEST_JSON = 2**26  # bytes; the ids of a subset are its longest part, and more than 100,000 lie in a file beside it
DEEPEST = 30  # lists and mappings inside each other
_KINDS = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket", stat.S_ISCHR: "device",
          stat.S_ISBLK: "device"}  # fmt: skip


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, and nothing else.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, pipe, socket or device.
    """
    check_regular(path, os.stat(path))  # opening a device may already do something
    # Not to wait for the other end if it became a pipe meanwhile.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        check_regular(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = next((name for is_kind, name in _KINDS.items() if is_kind(about.st_mode)), "special file")
        raise ValueError(f"{path} is a {kind}, and should be a file")


def read_bytes(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError, ValueError: see `open_regular`; a larger file.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)  # a file may be longer than its directory says
    if len(content) > most:
        raise ValueError(f"{path} is larger than the {most:,} bytes that a file of its kind may have")
    return content


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a damaged one is named in the error.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, too large, no JSON, a name twice in a mapping, or nested too deep.
    """
    return parse_json(read_bytes(path, LARGEST_JSON), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text, which `where` names in errors; see `read_json`."""
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
        if isinstance(text, bytes):
            text = text.decode()
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()  # half a character could not be printed later
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    check_depth(content, where)
    return content


def check_depth(content: Any, where: str) -> None:
    """Refuse lists and mappings nested deeper than `DEEPEST`."""
    level = [content]
    for _ in range(DEEPEST + 1):
        level = [inner for part in level for inner in _inside(part) if isinstance(inner, dict | list)]
        if not level:
            return
    raise ValueError(f"{where} is nested deeper than {DEEPEST} lists and mappings")


class Kind(NamedTuple):
    """What a field may hold: in words, and the test of a value."""

    words: str
    fits: Callable[[Any], bool]


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(lowest: int, highest: int = 2**63 - 1) -> Kind:
    return Kind(f"a whole number of at least {lowest}", lambda value: is_whole(value) and lowest <= value <= highest)


def optional(kind: Kind) -> Kind:
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


def list_of(kind: Kind) -> Kind:
    return Kind(
        f"a list, of which each is {kind.words}", lambda value: isinstance(value, list) and all(map(kind.fits, value))
    )


def mapping_of(kind: Kind) -> Kind:
    return Kind(
        f"a mapping, in which each is {kind.words}",
        lambda value: isinstance(value, dict) and all(map(kind.fits, value.values())),
    )


def having(fields: Mapping[str, Kind]) -> Kind:
    """A mapping with these fields; it may have others."""

    def fits(value: Any) -> bool:
        return isinstance(value, dict) and all(
            name in value and kind.fits(value[name]) for name, kind in fields.items()
        )

    return Kind(f"a mapping with {', '.join(f'{name!r} ({kind.words})' for name, kind in fields.items())}", fits)


TEXT = Kind("text", lambda value: isinstance(value, str))
MAPPING = Kind("a mapping", lambda value: isinstance(value, dict))
NUMBER = Kind("a number", is_number)
FINITE = Kind("a finite number", lambda value: is_number(value) and abs(value) < 2**63 and math.isfinite(value))
SAMPLE_ID = whole(0)


def check_fields(content: Any, fields: Mapping[str, Kind], where: str, may_lack: Iterable[str] = ()) -> dict[str, Any]:
    """The mapping that a file holds, in which every field is there and of its kind; further ones are not looked at.

    Args:
        content: what was read.
        fields: by name.
        where: begins the message.
        may_lack: fields that an older version did not write.

    Raises:
        ValueError: naming the field, what it holds and what it should hold.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{where} is damaged: it holds {shown(content)}, and should hold a mapping")
    for name, kind in fields.items():
        if name not in content:
            if name in may_lack:
                continue
            raise ValueError(f"{where} is damaged: it has no {name!r}")
        if not kind.fits(content[name]):
            raise ValueError(f"{where} is damaged: {name!r} is {shown(content[name])}, and should be {kind.words}")
    return content


def check_format(content: Any, expected: str, where: str, what: str) -> None:
    """Refuse a file of another kind, and one of another version, which may mean something else by the same names.

    Args:
        expected: its kind and version, such as "kdprune subset 1".
        what: it should be, for the message: "a subset file".
    """
    found = content.get("format") if isinstance(content, dict) else None
    if found == expected:
        return
    kind = expected.rpartition(" ")[0]
    if isinstance(found, str) and found.startswith(f"{kind} "):
        raise ValueError(f"{where} was written by another version of kdprune: its 'format' is {shown(found)}, "
                         f"this version reads {expected!r}")  # fmt: skip
    raise ValueError(f"{where} is not {what}: its 'format' should be {expected!r}")


def below(folder: Path, name: str) -> Path:
    """The path of a file that another file names, which lies in `folder` or below it, whatever links are on the way.

    Raises:
        ValueError: an absolute name, one that leads out of the folder, or one that no file can have.
    """
    path = folder / name
    try:
        if any(len(os.fsencode(part)) > 255 for part in path.parts):
            raise ValueError("it is too long")
        inside = not os.path.isabs(name) and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero in it, or links in a circle
        raise ValueError(f"{shown(name)} is no name of a file: {error}") from None
    if not inside:
        raise ValueError(f"{shown(name)} leads out of {folder}")
    return path


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before; None where each stands once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _inside(part: Any) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"{shown(first_repeated(name for name, _ in pairs))} is given twice")
    return content
