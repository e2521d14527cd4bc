"""From a run to a file or folder for elsewhere: made, compared with the student, and only then put in place."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdprune.config import dotted, to_dict
from kdprune.export.card import model_card
from kdprune.export.graph import to_onnx, to_torch_export
from kdprune.export.hub import write_hub_folder
from kdprune.export.student import COMPARED, Difference, difference, images_for, load_deployed
from kdprune.files import check_writable, check_writable_file, write_whole
from kdprune.messages import unknown
from kdprune.models.spec import BuiltModel
from kdprune.runs.reading import read_config, read_summary

GRAPHS = {"onnx": (to_onnx, "onnx"), "torch-export": (to_torch_export, "pt2")}
HUB = "hub-folder"
KINDS = (*GRAPHS, HUB)
TOLERANCE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        difference: between its logits and the student's.
    """

    path: Path
    difference: Difference


def export(
    run: str | Path, to: str, output: Path | None = None, tolerance: float = TOLERANCE, license: str | None = None
) -> Exported:
    """Export the student of a run.

    Args:
        run: its directory; a graph also of RUN@EPOCH or of a weights file.
        to: onnx or torch-export, one file from uint8 N×C×H×W to logits; hub-folder, which timm reads.
        output: the file or folder (default: `student.onnx`, `student.pt2` or `hub` in the run directory).
        tolerance: largest difference of a logit, over the largest logit, that is accepted.
        license: for the model card.

    Raises:
        ValueError: an unknown kind, no such run, packages that are missing; logits that differ by more than tolerance,
            after which nothing is written; a file or folder that cannot be written, or holds something else.
    """
    if to not in KINDS:
        raise ValueError(unknown("kind of export", to, KINDS))
    if not 0 < tolerance < 1:
        raise ValueError(f"--tolerance: {tolerance} given, allowed is (0, 1)")
    place = _place(Path(run), to, output)
    built, deployed = load_deployed(str(run))
    with torch.inference_mode():
        expected = [deployed(images_for(built, count)) for count in COMPARED]
    if to == HUB:
        return _export_folder(Path(run), built, place, expected, tolerance, license)
    make, _ = GRAPHS[to]
    content, logits = make(built, deployed)
    found = _accepted(logits, expected, tolerance, to)
    write_whole(place, lambda file: file.write(content))
    return Exported(place, found)


def _place(run: Path, to: str, output: Path | None) -> Path:
    """The file or folder that an export becomes.

    Raises:
        ValueError: it cannot be written, or holds something else; no run directory for a model card.
    """
    if to != HUB:
        file = output or _beside(run) / f"student.{GRAPHS[to][1]}"
        if output or file.parent.is_dir():  # that there is no such run is for others to say
            check_writable_file(file, "--output")
        return file
    if not run.is_dir():
        raise ValueError(f"--to {HUB}: {run} given, allowed is a run directory, which the model card is filled from")
    folder = output or run / "hub"
    check_writable(folder, "--output")
    if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise ValueError(f"--output: {folder} is there and holds something else; name another folder")
    return folder


def _export_folder(
    run: Path, built: BuiltModel, folder: Path, expected: list[Tensor], tolerance: float, license: str | None
) -> Exported:
    if built.widths:
        raise ValueError(
            f"--to {HUB}: {run} has fewer channels than {built.name}, and timm would build all of them; allowed are "
            f"{', '.join(GRAPHS)}"
        )
    card = model_card(built, read_summary(run), dotted(to_dict(read_config(run))), license)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        made = Path(name) / folder.name
        found = _accepted(write_hub_folder(made, built, card, license), expected, tolerance, HUB)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return Exported(folder, found)


def _accepted(logits: list[Tensor], expected: list[Tensor], tolerance: float, to: str) -> Difference:
    found = difference(logits, expected)
    if found.relative > tolerance:
        raise ValueError(
            f"--to {to}: the logits of what was made differ by {found.largest:.3g}, {found.relative:.2g} of the "
            f"largest one, which is more than --tolerance {tolerance:g}; nothing was written"
        )
    return found


def _beside(run: Path) -> Path:
    """The run directory of RUN, RUN@EPOCH or a weights file."""
    if run.is_dir():
        return run
    directory = Path(str(run).rpartition("@")[0])
    return directory if directory.is_dir() and str(directory) != "." else run.parent
