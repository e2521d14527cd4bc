"""Runs that say something of an arm: pilots, and whatever was trained before by the same recipe in the same output."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdprune.artefact import read_record
from kdprune.config import Config, config_hash, dotted, to_dict
from kdprune.planning.arms import Arm, Sizes, identity
from kdprune.planning.design import LENGTHS, RATIO, REPEATS, Design
from kdprune.report.entries import PILOT
from kdprune.runs.reading import SUMMARY, read_config, read_summary
from kdprune.sweep.study import Point, Study, with_settings

log = logging.getLogger("kdprune")

_UNTIL_ITS_END = 10**6  # epochs between evaluations


@dataclass(frozen=True)
class Observation:
    """A finished run of an arm.

    Attributes:
        top1: by which arms are judged.
        seconds: of its training.
        run: its directory.
    """

    steps: int
    top1: float
    seconds: float
    run: str


def pilot_study(name: str, base: Config, arms: Sequence[Arm], sizes: Sizes, design: Design) -> Study:
    """The pilots as a study, so that they are made as the runs of a sweep are."""
    plain = dotted(to_dict(with_settings(base, {})))
    points = []
    for arm in arms:
        kept = sizes.kept(arm.config)
        for steps in design.lengths.get(arm.name, []):
            for repeat in range(REPEATS):
                config = arm.of_length(steps, kept, repeat)
                config.train.eval_every = _UNTIL_ITS_END
                settings = {n: value for n, value in dotted(to_dict(config)).items() if value != plain[n]}
                points.append(Point({PILOT: arm.name, "steps": steps, "seed": repeat}, settings, "grid"))
    return Study(name, base, [points])


def observations(output: Path, arms: Sequence[Arm], sizes: Sizes) -> dict[str, list[Observation]]:
    """The finished runs of each arm, by its name: of any length and seeds, on this data, judged by the same part."""
    by_identity = {arm.identity(sizes.kept(arm.config)): arm.name for arm in arms}
    found: dict[str, list[Observation]] = {arm.name: [] for arm in arms}
    students = {arm.config.student.model for arm in arms}
    arm_of: dict[str, str | None] = {}  # to read the settings of one run of each kind, which takes longest
    for path, summary in finished(output):
        if summary.get("dataset_fingerprint") != sizes.fingerprint or summary["student"]["name"] not in students:
            continue
        if not isinstance(summary.get(sizes.judge), float):
            continue
        kind = _kind(summary) or str(path)
        if kind not in arm_of:
            config = _config(path)
            arm_of[kind] = None if config is None else by_identity.get(identity(config, summary["kept"]))
        name = arm_of[kind]
        if name is not None:
            run = Observation(summary["steps"], summary[sizes.judge], summary["train_seconds"], str(path))
            found[name].append(run)
    return found


def _kind(summary: Mapping[str, Any]) -> str | None:
    """Equal for runs whose keys differ in length and seeds only, and that so are of one arm; None without a key."""
    key = summary.get("key")
    if not isinstance(key, dict) or not isinstance(key.get("train"), dict):
        return None
    train = {name: value for name, value in key["train"].items() if name not in ("steps", "epochs")}
    try:
        warmup, milestones = train.pop("warmup_epochs"), train.pop("decay_milestones")
        epochs = summary["epochs"]
        shares = [round(warmup / epochs, 4), [round(milestone / epochs, 4) for milestone in milestones]]
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return json.dumps([{**key, "train": train, "seeds": None}, shares, summary["kept"]], sort_keys=True)


def is_known(runs: Sequence[Observation], longest: int) -> bool:
    """Whether finished runs say as much of an arm as pilots would, the longest of `longest` steps."""
    lengths = {run.steps for run in runs}
    return len(runs) >= LENGTHS * REPEATS and len(lengths) >= LENGTHS and max(lengths) >= longest / RATIO * 2


def repeats(found: Mapping[str, Sequence[Observation]]) -> list[list[float]]:
    """Accuracies of runs of one arm and length, for all of which there are."""
    groups: dict[tuple[str, int], list[float]] = {}
    for name, runs in found.items():
        for run in runs:
            groups.setdefault((name, run.steps), []).append(run.top1)
    return list(groups.values())


def finished(output: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Students in the output that are finished, by name, with their summaries; what cannot be read is passed over."""
    for file in sorted(output.glob(f"*/{SUMMARY}")):
        try:
            record = read_record(file.parent)
            if record is not None and "files" in record:
                yield file.parent, read_summary(file.parent)
        except (ValueError, OSError) as error:
            log.warning("%s is left out: %s", file.parent, error)


def run_of(runs: Iterable[tuple[Path, dict[str, Any]]], wanted: str, steps: int) -> tuple[Path, dict[str, Any]] | None:
    """The run whose settings have this hash, of finished ones with their summaries.

    Args:
        steps: that it has, by which most others are passed over unread.
    """
    for path, summary in runs:
        config = _config(path) if summary["steps"] == steps else None
        if config is not None and config_hash(config) == wanted:
            return path, summary
    return None


def trained(folder: Path) -> set[str]:
    """Hashes of the settings of finished trainings in a folder, such as that of teachers."""
    configs = (_config(path) for path, _ in finished(folder))
    return {config_hash(config) for config in configs if config is not None}


def _config(path: Path) -> Config | None:
    try:
        return read_config(path)
    except (ValueError, OSError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
