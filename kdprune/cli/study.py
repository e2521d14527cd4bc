"""The options of `kdprune sweep`: those of a run, and the axes of a study by names that have dots. Nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from kdprune.sweep.words import sections_of


class StudyParser(ArgumentParser):
    """Takes `--grid.NAME VALUES` and the like out of the words, and adds them to what study files say.

    An axis on the command line takes the place of the file's axis of that name.
    """

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Namespace:  # type: ignore[override]
        try:
            others, sections = sections_of(sys.argv[1:] if args is None else args)
            for file in _files(others):
                _refuse_twice(file)
        except ValueError as error:
            raise ArgumentError(None, str(error)) from None
        parsed = super().parse_args(others, *rest, **options)
        for name, said in sections.items():
            parsed[name] = _together(parsed[name], said)
        return parsed


def name_of(options: Namespace) -> str:
    """Of a study: as given, or that of its file."""
    files = options.config or []
    return options.name or (Path(str(files[-1])).stem if files else "sweep")


def _together(before: Any, said: Any) -> Any:
    if isinstance(before, Mapping) and isinstance(said, Mapping):
        return {**before, **said}
    if isinstance(said, list) and before is not None:
        return [*(before if isinstance(before, list) else [before]), *said]
    return said


def _files(words: Sequence[str]) -> list[Path]:
    pairs = zip(words, [*words[1:], ""], strict=True)
    named = [word.partition("=")[2] or following for word, following in pairs if word.partition("=")[0] == "--config"]
    return [Path(name) for name in named if Path(name).is_file()]


def _refuse_twice(file: Path) -> None:
    """Refuse a name that a mapping of a YAML file has twice, of which YAML would drop the first: two arms, say."""
    try:
        waiting = [("", yaml.compose(file.read_text(), yaml.SafeLoader))]
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return  # what is wrong is said by whoever reads it
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += [(place, part) for part in node.value]
        elif isinstance(node, yaml.MappingNode):
            names = [str(key.value) for key, _ in node.value]
            if twice := [name for index, name in enumerate(names) if name in names[:index]]:
                raise ValueError(f"{file}: {place}{twice[0]} is given twice")
            waiting += [(f"{place}{name}.", value) for name, (_, value) in zip(names, node.value, strict=True)]
