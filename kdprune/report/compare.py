"""What differs between runs, and the command that repeats one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdprune.artefact import differences, read_record
from kdprune.checks import GIVEN
from kdprune.config import Config, dotted, relevant, to_dict
from kdprune.report.runs import Run
from kdprune.runs.reading import read_config

_DEFAULTS = dotted(to_dict(Config()))
# What people look for first.
_FIRST = (
    "data.dataset", "subset.keep_fraction", "subset.selector", "subset.scorer", "student.model", "teacher.models",
    "distill.loss", "distill.alpha", "distill.temperature", "train.lr", "train.epochs", "train.steps",
)  # fmt: skip
_LAST = ("seed", "seeds.weights", "seeds.data", "seeds.subset", "seeds.teacher")


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the settings in which runs differ and on which results depend, the most looked-for first."""
    names = [name for name in relevant(Config()) if len({repr(run.values.get(name)) for run in runs}) > 1]
    first = [name for name in _FIRST if name in names]
    last = [name for name in _LAST if name in names]
    return [*first, *(name for name in names if name not in (*first, *last)), *last]


def differing_inputs(first: Path, second: Path) -> list[str]:
    """Where the keys of two runs differ, in words: the contents of data, subset and weights, and resolved settings."""
    keys = [(read_record(path) or {}).get("key", {}) for path in (first, second)]
    return [line.replace(" there, ", " and ").replace(" asked for", "") for line in differences(*keys)]


def command_of(path: Path) -> str:
    """The command that repeats a run, with every setting that differs from the defaults.

    Raises:
        FileNotFoundError, ValueError: no run directory; a run on objects that were given in Python.
    """
    config = read_config(path)
    config.name = None
    if objects := [name for name, value in dotted(to_dict(config)).items() if GIVEN in str(value)]:
        raise ValueError(f"{path}: {', '.join(objects)} was an object of a Python program, which no command can name")
    return command_for(config)


def command_for(config: Config) -> str:
    """The command that trains by these settings, with every one that differs from the defaults."""
    settings = dotted(to_dict(config))
    # The data is always named, since without it the command is the demonstration.
    given = {name: value for name, value in settings.items() if value != _DEFAULTS[name] or name == "data.dataset"}
    options = [f"--{name} {shlex.quote(_written(value))}" for name, value in given.items()]
    return " ".join(["kdprune train", *options])


def _written(value: Any) -> str:
    """A value as the command line reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return json.dumps(value)
    return str(value)
