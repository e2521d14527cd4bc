"""Settings that are chosen for each arm, by runs that are judged on a validation part of the training set. Pure.

A run that chooses trains nothing on that part, and neither do its teachers and proxies: those are other ones than of
the final runs, which use the whole training set.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdprune.messages import listed
from kdprune.sweep.study import Run, Settings, Study, value_words, with_settings, words

VAL_FRACTION = 0.1  # of the training set
_CHANGE_GRADIENT = ("alpha", "loss", "temperature")


@dataclass(frozen=True)
class Trial:
    """One choice of values for an arm, and the runs that try it, which differ in their seed."""

    values: Settings
    runs: Sequence[Run]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds only.

    Attributes:
        coordinates: what they share.
        trials: of the tuned settings; none where nothing is tuned.
    """

    coordinates: Settings
    runs: Sequence[Run]
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Choice:
    """What was chosen for an arm.

    Attributes:
        values: of the tuned settings.
        curve: of every trial its values, and `val_top1`, `val_loss` (means over its seeds; None if a run failed) and
            `train_seconds`.
    """

    values: Settings
    curve: Sequence[dict[str, Any]]


def arms(study: Study, val_fraction: float = VAL_FRACTION, seeds: int = 1) -> list[Arm]:
    """The arms of a study, each with the runs that choose its settings.

    Args:
        val_fraction: of the training set that judges; a recipe that sets a part aside itself has its own.
        seeds: how many of an arm's runs try each choice; the first ones.
    """
    if study.tuned and not 0 < val_fraction < 1:
        raise ValueError(f"--tune_val_fraction: {val_fraction} given, allowed is (0, 1)")
    if seeds < 1:
        raise ValueError(f"--tune_seeds: {seeds} given, allowed is 1 or more")
    groups: dict[str, list[Run]] = {}
    for run in study.runs():
        groups.setdefault(words(run.arm), []).append(run)
    choices = [dict(zip(study.tuned, values, strict=True)) for values in itertools.product(*study.tuned.values())]
    found = []
    for runs in groups.values():
        tried = [_tuning(run, val_fraction) for run in runs[:seeds]]
        trials = [Trial(choice, [chosen(run, choice) for run in tried]) for choice in choices] if study.tuned else []
        found.append(Arm(runs[0].arm, runs, trials))
    return found


def chosen(run: Run, values: Settings) -> Run:
    """A run with what was chosen for it."""
    return Run(run.coordinates, with_settings(run.config, values)) if values else run


def choose(trials: Sequence[Trial], summaries: Mapping[str, Mapping[str, Any] | None]) -> Choice | None:
    """The trial with the highest accuracy on the validation part, and of equal ones that with the lowest loss.

    Args:
        summaries: of the runs by id; None for one that failed, as one does whose learning rate is too large.

    Returns:
        None where no trial has all of its runs.
    """
    curve = []
    for trial in trials:
        results = [summaries.get(run.id) for run in trial.runs]
        row: dict[str, Any] = {**trial.values, "val_top1": None, "val_loss": None}
        row["train_seconds"] = sum(result["train_seconds"] for result in results if result is not None)
        # Data without a held-out part of its own may have the validation part for it: nothing is left to judge by.
        there = [result for result in results if result is not None and result.get("val_top1") is not None]
        if len(there) == len(results):
            row |= {name: statistics.mean(result[name] for result in there) for name in ("val_top1", "val_loss")}
        curve.append(row)
    finished = [index for index, row in enumerate(curve) if row["val_top1"] is not None]
    if not finished:
        return None
    best = max(finished, key=lambda index: (curve[index]["val_top1"], -curve[index]["val_loss"]))
    return Choice(trials[best].values, curve)


def at_an_end(values: Settings, curve: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of chosen values those that are the `smallest` or `largest` of the tried ones: better ones may lie beyond.

    Args:
        curve: see `Choice`.
    """
    found = {}
    for name, value in values.items():
        tried = [row[name] for row in curve]
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in tried)
        if numbers and len(set(tried)) > 1 and value in (min(tried), max(tried)):
            found[name] = "smallest" if value == min(tried) else "largest"
    return found


def confounded(study: Study) -> str | None:
    """A warning where arms that need other learning rates are compared at the same one."""
    if "train.lr" in study.tuned:
        return None
    configs = [run.config for run in study.runs()]
    guided = [config.distill for config in configs if config.teacher.models]
    varied = [name for name in _CHANGE_GRADIENT if len({value_words(getattr(one, name)) for one in guided}) > 1]
    compared = [f"distill.{name}" for name in varied]
    if 0 < len(guided) < len(configs):
        compared.append("runs with and without a teacher")
    if not compared:
        return None
    return (
        f"{listed(compared)}: compared at one learning rate, and they change the size of the gradient, so that the "
        "best one of each arm may differ; --tune.train.lr chooses it for each arm on a part of the training set"
    )


def _tuning(run: Run, val_fraction: float) -> Run:
    """The run as it chooses settings."""
    own = run.config.data.val_fraction
    return Run(run.coordinates, with_settings(run.config, {"data.val_fraction": own or val_fraction}))
