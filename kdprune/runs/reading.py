"""What a run directory says of its run: settings and results, as anybody may have written them.

It imports neither torch nor timm, so that a list of runs answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdprune.config import Config, from_dict
from kdprune.outside import FINITE, MAPPING, NUMBER, TEXT, check_fields, having, list_of, optional, read_json, whole
from kdprune.yaml_text import read_yaml

SUBSET, SUMMARY, WEIGHTS = "subset.json", "summary.json", "student.safetensors"

RESULT = {"test_top1": optional(NUMBER), "steps": whole(0), "images_seen": whole(0), "train_seconds": FINITE,
           "images_per_second": FINITE}  # fmt: skip
_MODEL = {"name": TEXT, "parameters": whole(0)}
_STAGE = dict.fromkeys(("seconds", "forward_samples", "backward_samples"), FINITE)
_SUMMARY = {
    **RESULT, "dataset": TEXT, "kept": whole(0), "total": whole(1), "alpha": FINITE, "precision": TEXT,
    "subset_hash": TEXT, "student": having(_MODEL), "teacher": list_of(having({"name": TEXT, "source": TEXT})),
    "cost": having({"student_training": having(_STAGE), "teacher_training": having(_STAGE)}), "inputs": MAPPING,
}  # fmt: skip
_INPUTS = {"scores": optional(MAPPING), "teachers": list_of(MAPPING)}


def read_summary(path: Path) -> dict[str, Any]:
    """What came out of the run in directory `path`, which anybody may have written.

    Raises:
        ValueError: there is no summary, or it is damaged.
    """
    file = path / SUMMARY
    if not file.is_file():
        raise ValueError(f"{file} is not there")
    return check_summary(read_json(file), file)


def check_summary(content: Any, file: Path) -> dict[str, Any]:
    """The content of a summary, once it is known to hold what is read of one.

    Raises:
        ValueError: naming what is missing, or of another kind.
    """
    check_fields(content, _SUMMARY, str(file))
    check_fields(content["inputs"], _INPUTS, f"{file}, 'inputs',", may_lack=_INPUTS)
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
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it holds no settings")
    try:
        return from_dict(content)
    except ValueError as error:
        raise ValueError(f"{file} is damaged, or of another version: {error}") from None
