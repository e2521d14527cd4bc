"""YAML within bounds: plain values only, read by PyYAML's safe loader.

A few lines of YAML can stand for billions of values (aliases of aliases), crash the parser in C (thousands of open
brackets), or name a value twice. So there are no anchors' aliases, no tags, no name twice, and a depth that any reader
can follow. The parser is the one in Python, which can be bounded and is slow, so texts are bounded, too.
"""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import yaml

from kdprune.messages import shown
from kdprune.outside import DEEPEST, first_repeated, read_bytes

LONGEST = 2**15  # bytes; the settings of a run take about 4,000
_PART = re.compile(r"^(?=[A-Za-z_]\w*:)", re.MULTILINE)


class YamlError(yaml.YAMLError, ValueError):
    """A text that is not read; the message says why."""


class BeyondBounds(YamlError):
    """A text that another parser might not survive."""


def read_yaml(path: str | Path) -> Any:
    """The value in a YAML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, too large, no YAML, or YAML beyond these bounds; the message names the file.
    """
    content = read_bytes(path, LONGEST)
    try:
        text = content.decode()
        in_parts = _parse_in_parts(text)
        return parse_yaml(text) if in_parts is None else in_parts
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None


def _parse_in_parts(text: str) -> dict[str, Any] | None:
    """A mapping entry by entry; None where a text is no sequence of whole entries.

    The settings of a thousand runs differ in few entries, and each different one is parsed once.
    """
    found: dict[str, Any] = {}
    for part in filter(None, _PART.split(text)):
        try:
            entry = _parse_part(part)
        except YamlError:
            return None  # the whole text says where it is wrong
        if not isinstance(entry, dict) or len(entry) != 1 or found.keys() & entry.keys():
            return None
        found |= copy.deepcopy(entry)
    return found or None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        YamlError: too long, no YAML, or YAML beyond the bounds above.
    """
    if len(text) > LONGEST:
        raise BeyondBounds(f"{len(text):,} characters given, allowed are {LONGEST:,}")
    try:
        return _Loader(text).get_single_data()
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlError(f"{error.problem or error.context}{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise YamlError(str(error)) from None


@functools.lru_cache(maxsize=4096)
def _parse_part(text: str) -> Any:
    return parse_yaml(text)


def check_bounds(text: str) -> None:
    """Refuse a text that is beyond the bounds if it is YAML, as a parser might try it; others may be anything.

    Raises:
        BeyondBounds: too long, nested too deep, or with aliases.
    """
    try:
        parse_yaml(text)
    except BeyondBounds:
        raise
    except YamlError:
        pass


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors:
            raise BeyondBounds(f"line {line} has the alias '*{event.anchor}': write out the value itself")
        if getattr(event, "tag", None) is not None:
            raise YamlError(f"line {line} has the tag {event.tag!r}: allowed are plain values")
        self._depth += 1
        if self._depth > DEEPEST:
            raise BeyondBounds(f"line {line} is nested deeper than {DEEPEST} lists and mappings")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level >= DEEPEST:  # long before the parser meets them all
            raise BeyondBounds(f"line {self.line + 1} opens more than {DEEPEST} brackets")
        super().fetch_flow_collection_start(kind)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if (twice := first_repeated(names)) is not None:
            raise YamlError(
                f"{shown(twice)} is given twice in the mapping that begins in line {node.start_mark.line + 1}"
            )
        return super().construct_mapping(node, deep)


# Numbers as YAML 1.2 and Python write them (1e-3), and no dates.
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("float", "timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
