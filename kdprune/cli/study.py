"""The options of `kdprune sweep`: those of a run, and the axes of a study by names that have dots. Nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from kdprune.cli.help import SettingsParser
from kdprune.sweep.words import sections_of


class StudyParser(SettingsParser):
    """Takes `--grid.NAME VALUES` and the like out of the words, and adds them to what study files say.

    An axis on the command line takes the place of the file's axis of that name.
    """

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Namespace:  # type: ignore[override]
        try:
            others, sections = sections_of(sys.argv[1:] if args is None else args)
        except ValueError as error:
            raise ArgumentError(None, str(error)) from None
        parsed = super().parse_args(others, *rest, **options)
        for name, said in sections.items():
            if name not in parsed:
                raise ArgumentError(None, f"--{name}: {self.prog} has no such option")
            parsed[name] = _together(name, parsed[name], said)
        return parsed


def name_of(options: Namespace) -> str:
    """Of a study: as given, or that of its file."""
    files = options.config or []
    return options.name or (Path(str(files[-1])).stem if files else "sweep")


def _together(section: str, before: Any, said: Any) -> Any:
    if isinstance(before, Mapping) and isinstance(said, Mapping):
        return {**before, **said}
    if isinstance(said, Mapping) and before:
        raise ArgumentError(
            None,
            f"--{section}.{next(iter(said))}: the study file gives {section} as a list, to which nothing can be added; "
            f"allowed is a {section} of settings by names there, or all of it in one place",
        )
    if isinstance(said, list) and before is not None:
        return [*(before if isinstance(before, list) else [before]), *said]
    return said
