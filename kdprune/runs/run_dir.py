"""A run directory: what a run was asked to do, how far it is, what came out. An artefact with files for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml

from kdprune.artefact import Artefact, Key, damage
from kdprune.config import Config, from_dict, to_dict
from kdprune.data.subset import Subset
from kdprune.files import read_json, write_json, write_text
from kdprune.models.locate import snapshots
from kdprune.records import dynamics

SUBSET, SUMMARY, WEIGHTS = "subset.json", "summary.json", "student.safetensors"
_PREAMBLE = ("config.yaml", "environment.json", SUBSET, "subset.ids.npy")


class RunDir:
    """`<output>/<name>/`.

    Args:
        path: the directory; made when something is first written.
        config: what the run is asked to do.
        key: what its result is a function of.
    """

    def __init__(self, path: Path, config: Config, key: Key) -> None:
        self.path, self.config = path, config
        self.artefact = Artefact(path, "a run", key, "choose another --name, or remove it", _PREAMBLE)

    @property
    def finished(self) -> bool:
        """Whether its result is there, whole and as it was written.

        Raises:
            ValueError: the directory holds another run, and what differs; or a file of a finished run is missing or has
                changed, unless the run is to be made again.
        """
        if not self.artefact.finished:
            return False
        found = damage(self.path)
        if found and not self.config.remake:
            raise ValueError(f"{'; '.join(found)}. The run was finished: --remake true trains it again")
        if found:
            self.artefact.reopen()
        return not found

    @property
    def lacking(self) -> list[str]:
        """Snapshots that a finished run is asked for and has not kept, as they stand behind `RUN@`.

        What its training was to keep and never came to, such as a step beyond its end, is not lacking.
        """
        kept = snapshots(self.path)
        if all(name in kept for name in _snapshot_names(self.config)):
            return []
        tried = _snapshot_names(read_config(self.path))
        return [name for name in _snapshot_names(self.config) if name not in kept and name not in tried]

    @property
    def summary(self) -> dict[str, Any]:
        """What came out, of a finished run."""
        return read_json(self.path / SUMMARY)

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def dynamics(self) -> Path:
        """Where the statistics of samples are, if they are recorded."""
        return self.path / dynamics.FOLDER

    def start(self, environment: dict[str, Any], subset: Subset) -> None:
        """Write down the key, the settings, the samples and the surroundings."""
        self.artefact.begin()
        if not (self.path / "config.yaml").exists() or not any(self.checkpoints.glob("*.pth")):
            write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(self.config), sort_keys=False))
        write_json(self.path / "environment.json", environment)
        subset.save(self.path / SUBSET)

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
        """Write the summary; from now on the run is finished."""
        write_json(self.path / SUMMARY, summary)
        names = [*_PREAMBLE, "metrics.csv", "search.json", WEIGHTS, SUMMARY]
        snapshots = sorted(self.checkpoints.glob("*.safetensors"))
        recorded = sorted(path for path in self.dynamics.glob("*") if not path.name.startswith("."))
        names += [str(path.relative_to(self.path)) for path in [*snapshots, *recorded]]
        self.artefact.finish(name for name in names if (self.path / name).is_file())


def _snapshot_names(config: Config) -> list[str]:
    return [*map(str, config.train.save_epochs), *(f"step{step}" for step in config.train.save_steps)]


def read_summary(path: Path) -> dict[str, Any]:
    """What came out of the run in directory `path`, which anybody may have written.

    Raises:
        ValueError: there is no summary, or it is damaged.
    """
    file = path / SUMMARY
    content = read_json(file) if file.is_file() else None
    described = content.get("teacher") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(described, list) or not isinstance(content.get("student"), dict):
        raise ValueError(f"{file} is {'damaged: it holds no summary' if file.is_file() else 'not there'}")
    return content


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no settings")
    return from_dict(content)
