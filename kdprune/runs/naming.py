"""What a run directory is called."""

from __future__ import annotations

import re
from pathlib import Path

from kdprune.artefact import Key, key_hash
from kdprune.checks import GIVEN
from kdprune.config import Config


def run_name(config: Config, key: Key) -> str:
    """The run's name, or one that says what it is and ends with a hash of all that it is made of.

    Contents are part of the key, so a run on other data, on another subset of the same name or with a teacher that was
    trained anew gets a directory of its own.
    """
    if config.name:
        return config.name
    kind = "kd" if config.teacher.models else "plain"
    keep = Path(config.subset.file).stem if config.subset.file else f"{config.subset.keep_fraction:g}"
    if config.subset.dynamic:
        keep += f"-{config.subset.dynamic.partition('(')[0].strip()}"
    dataset = config.data.dataset.rstrip("/").split("/")[-1].removeprefix(GIVEN)
    parts = [dataset, config.student.model.removeprefix(GIVEN), f"f{keep}", kind, f"s{config.seed}", *_of_mask(config)]
    return re.sub(r"[^\w.\-]+", "_", "-".join([*parts, key_hash(key)[:8]]))


def _of_mask(config: Config) -> list[str]:
    """What is pruned of the student's weights: `sp0.9`, the pruner and the check of its mask."""
    student = config.student
    check = [] if student.mask_check is None else [student.mask_check]
    if student.mask:
        return ["mask", *check]
    if not student.sparsity:
        return []
    pattern = [] if student.pattern is None else [student.pattern.replace(":", "of")]
    return [f"sp{student.sparsity:g}", *pattern, student.pruner.partition("(")[0].strip(), *check]
