"""A run directory: what a run was asked to do, how far it is, what came out. An artefact with files for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml

from kdprune.artefact import Artefact, Key, damage
from kdprune.config import Config, to_dict
from kdprune.data.subset import Subset
from kdprune.files import write_json, write_text
from kdprune.models.locate import snapshots
from kdprune.models.mask_file import BITS, JSON
from kdprune.outside import check_fields, read_json
from kdprune.records import dynamics
from kdprune.records.predictions import remove_predictions
from kdprune.runs.reading import RESULT, SUBSET, SUMMARY, WEIGHTS, check_summary, read_config

MASK = (JSON, BITS)  # of a student with pruned weights
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
        """What came out, of a finished run, or of a shorter training, such as a candidate of a search."""
        file = self.path / SUMMARY
        content = check_fields(read_json(file), RESULT, str(file))
        return check_summary(content, file) if "student" in content else content

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def checkpoints(self) -> Path:
        """Where the state of an unfinished run and the snapshots of a finished one are.

        Raises:
            ValueError: it is a link; the files of whoever it leads to would be taken for the run's, and removed.
        """
        folder = self.path / "checkpoints"
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link, and a run's checkpoints lie in its own directory: remove the link")
        return folder

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
        names = [*_PREAMBLE, "metrics.csv", "search.json", *MASK, WEIGHTS, SUMMARY]
        snapshots = sorted(self.checkpoints.glob("*.safetensors"))
        recorded = sorted(path for path in self.dynamics.glob("*") if not path.name.startswith("."))
        names += [str(path.relative_to(self.path)) for path in [*snapshots, *recorded]]
        self.artefact.finish(name for name in names if (self.path / name).is_file())
        remove_predictions(self.dynamics)  # only now: a kill before it has the training go on from a checkpoint


def _snapshot_names(config: Config) -> list[str]:
    return [*map(str, config.train.save_epochs), *(f"step{step}" for step in config.train.save_steps)]
