"""What jsonargparse says of a mistake, said again for the person who typed: given, allowed, nearest name.

Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdprune.cli.help import MOST_NEEDED
from kdprune.config import Config
from kdprune.messages import did_you_mean, shown, wrong_value
from kdprune.typed import types_of

NEAR = 3  # names that are offered
ALIKE = 0.6  # of 1, as difflib has it


def explain(message: str, options: Sequence[str], words: Sequence[str] = ()) -> str:
    """One line for a person; a message that is not known is handed through.

    Args:
        message: of jsonargparse.
        options: all that the parser has, with their dashes.
        words: all that was typed after the command.
    """
    if match := re.match(r'Parser key "([\w.]+)":', message):
        return _wrong_value(match[1], message)
    if match := re.match(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_setting(f"{match[1]}.{match[2]}", options)
    if match := re.match(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_setting(match[1], options)
    if match := re.match(r"argument (--[\w.]+): expected one argument", message):
        return f"{match[1]}: a value must follow"
    if match := re.match(r"unrecognized arguments: ?(.*)", message):
        return _unrecognized(match[1], options, words)
    return message


def with_option(text: str, values: Mapping[str, Any]) -> str:
    """A message about a file, with the option that named the file in front of it.

    Args:
        text: what is wrong; left as it is if it names an option, or a file that no option names.
        values: of the options, by their names without dashes; of what has no name, by what it is.
    """
    if text.startswith("--"):
        return text
    paths = [(name, path) for name, value in values.items() for path in _paths(value) if _names(text, path)]
    if not paths:
        return text
    longest = max(len(path) for _, path in paths)
    names = list(dict.fromkeys(name for name, path in paths if len(path) == longest))
    return f"{names[0]}: {text}" if len(names) == 1 else text


def of_system(error: OSError) -> str:
    """What the operating system says, without its number: "no such file or directory: /x"."""
    if error.strerror is None or error.filename is None:
        return str(error)
    return f"{error.strerror[:1].lower()}{error.strerror[1:]}: {error.filename}"


def _paths(value: Any) -> Iterable[str]:
    """What may be paths among the value of an option."""
    values = value if isinstance(value, list) else [value]
    return (text.rstrip("/") for text in values if isinstance(text, str) and ("/" in text or "." in text.strip(".")))


def _names(text: str, path: str) -> bool:
    """Whether a message names a file, or one below a folder, and not one whose name only begins alike."""
    return bool(path) and re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w-])", text) is not None


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
    return f"unknown setting {name!r}{_near_name(name, [option.removeprefix('--') for option in options])}"


def _unrecognized(text: str, options: Sequence[str], words: Sequence[str]) -> str:
    """Of options that are not there, and of words that belong to no option."""
    first = text.split()[0] if text.split() else ""
    message = f"unrecognized arguments: {text}"
    if first.startswith("-"):
        return message + _near_option(first.partition("=")[0], options)
    if not first:
        return "an empty argument given: is a variable of the shell empty?"
    if "--config" in options:
        if first.endswith((".yaml", ".yml")):
            return f"{shown(first)} given without its option; did you mean --config {first}?"
        if (Path(first) / "config.yaml").is_file():
            return f"{shown(first)} is a run; did you mean --config {first}/config.yaml, which repeats it?"
    if words and words[0] == first and "--config" in options:
        return f"{shown(first)} given without an option; values follow their names, as in --{MOST_NEEDED[1]} {first}"
    return f"{message}; several values of one option are given as A,B"


def _near_option(given: str, options: Sequence[str]) -> str:
    """A hint for an option that is not there: --lr is --train.lr, and --trian.lr, too."""
    asked = given.replace("-", "_").lstrip("_")
    known = [option.removeprefix("--") for option in options if option.startswith("--")]
    if "." not in asked:
        parts = {name.rpartition(".")[2] for name in known if "." in name}
        near = difflib.get_close_matches(asked, parts, n=1, cutoff=0.8)
        named = [name for name in known if name.rpartition(".")[2] in near]
        whole = difflib.get_close_matches(asked, [name for name in known if "." not in name], n=1)
        if named and (asked in near or not whole):
            depth = min(name.count(".") for name in named)
            best = [name for name in named if name in MOST_NEEDED] or [n for n in named if n.count(".") == depth]
            return f"; did you mean {' or '.join(f'--{name}' for name in best[:NEAR])}?"
    return _near_name(f"--{asked}", options)


def _near_name(given: str, options: Sequence[str]) -> str:
    """A hint at the option whose whole name is near, and whose own part of it is, too: groups alone make all alike."""

    def own(name: str) -> str:
        return name.rpartition(".")[2]

    alike = [name for name in options if difflib.SequenceMatcher(None, own(given), own(name)).ratio() >= ALIKE]
    return did_you_mean(given, alike, write=str)
