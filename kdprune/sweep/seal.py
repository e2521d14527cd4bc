"""Runs that were found finished before, and of which nothing has changed since: they need not be found again.

To find a run is to open its data, to put together its key, and to read all of its files: seconds. A *seal* is what all
of that comes to, as far as it can be seen without: the settings, the versions of the code, the fingerprint of the data,
and the sizes and times of the run's files and of all files that its settings name. While it is the same, so is the run.
Where anything differs, the run is found, and its files are read, as always. `kdprune verify` reads them in any case.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdprune.artefact import FILE, read_record
from kdprune.config import Config, to_dict
from kdprune.data.dataset import open_data
from kdprune.outside import below
from kdprune.pipeline.keys import VERSION
from kdprune.runs.accelerator import resolve_precision

log = logging.getLogger("kdprune")

Prints = tuple[str, str | None]  # of training and held-out data


class Fingerprints:
    """Fingerprints of data, of which each is opened once."""

    def __init__(self) -> None:
        self._found: dict[str, Prints | None] = {}

    def of(self, config: Config) -> Prints | None:
        """Of the data of a run; None where it cannot be opened here."""
        name = json.dumps([asdict(config.data), config.seed_of("subset")], sort_keys=True)
        if name not in self._found:
            self._found[name] = None
            with contextlib.suppress(ValueError, OSError):
                data = open_data(config.data, config.seed_of("subset"))
                self._found[name] = data.fingerprint, data.test_fingerprint
        return self._found[name]


def seal_of(config: Config, path: Path, prints: Prints) -> str | None:
    """The seal of a finished run; None where it is not finished.

    Args:
        path: its directory.
        prints: of its data.
    """
    with contextlib.suppress(ValueError, OSError):
        record = read_record(path)
        if record is None or "files" not in record:
            return None
        settings = to_dict(config)
        files = [path / FILE, *(below(path, name) for name in record["files"]), *_named(settings)]
        content = {
            "versions": _versions(),
            "settings": {**settings, "output": os.path.abspath(config.output)},
            "precision": resolve_precision(config.train.precision),
            "data": list(prints),
            "files": [_looks(file) for file in files],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return None


def prints_of(summary: dict[str, Any]) -> Prints:
    """Fingerprints of the data that a run was trained on."""
    return summary["dataset_fingerprint"], summary["inputs"].get("test_data")


@functools.cache
def _versions() -> list[Any]:
    """Of the code that a result depends on."""
    return [version("kdprune"), version("torch"), VERSION]


def _named(settings: dict[str, Any]) -> Iterator[Path]:
    """Files that settings name: of a directory, such as a teacher's run, what says what it holds."""
    for text in _texts(settings):
        place = Path(text.rpartition("@")[0] or text)
        if os.sep in text or place.suffix:
            yield place / FILE if place.is_dir() else place


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        parts: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for part in parts:
            yield from _texts(part)


def _looks(file: Path) -> list[Any]:
    """What changes with a file; nothing of one that is not there, which may be no file's name at all."""
    try:
        about = file.stat()
    except (OSError, ValueError):
        return [str(file)]
    return [str(file), about.st_size, about.st_mtime_ns, about.st_ino]
