"""A run directory: what a run was asked to do, how far it is, what came out."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml

from kdprune.config import Config, from_dict, relevant, to_dict
from kdprune.files import read_json, write_json, write_text


class RunDir:
    """`<output>/<name>/`. Opening it decides whether the run is new, unfinished or finished.

    Args:
        path: the directory; made when something is first written.
        config: what the run is asked to do.

    Raises:
        ValueError: the directory holds a run with other settings; the message names them.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        if (path / "config.yaml").exists() and self._begun:
            _same_settings(path, read_config(path), config)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The result of a finished run, else None."""
        path = self.path / "summary.json"
        return read_json(path) if path.exists() else None

    @property
    def _begun(self) -> bool:
        """Whether there is anything to lose: a run that was refused before its first step leaves its name free."""
        left = ("metrics.csv", "summary.json", "search", "search.json", "checkpoints", "student.safetensors")
        return any((self.path / name).exists() for name in left)

    @property
    def weights(self) -> Path:
        return self.path / "student.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def start(self, environment: dict[str, Any]) -> None:
        """Write down the settings and the surroundings."""
        if not ((self.path / "config.yaml").exists() and self._begun):
            write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(self.config), sort_keys=False))
        write_json(self.path / "environment.json", environment)

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """metrics.csv, a row an epoch, written anew so that a resumed run leaves no row twice."""
        if not rows:
            return
        text = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "metrics.csv", text.getvalue())

    def finish(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)


def read_config(path: Path) -> Config:
    """The settings of the run in directory `path`.

    Raises:
        FileNotFoundError: not a run directory.
        ValueError: a damaged config.yaml.
    """
    file = path / "config.yaml"
    if not file.exists():
        raise FileNotFoundError(f"{path} is not a run directory: it has no config.yaml")
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no settings")
    return from_dict(content)


def _same_settings(path: Path, there: Config, asked: Config) -> None:
    old, new = relevant(there), relevant(asked)
    different = [f"{name}: {old.get(name)} there, {new[name]} asked for" for name in new if old.get(name) != new[name]]
    if different:
        raise ValueError(
            f"{path} holds a run with other settings ({'; '.join(different)}); choose another --name, or remove it"
        )
