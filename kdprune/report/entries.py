"""The rows of a report: runs with the arm and the seed that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdprune.report.runs import Run
from kdprune.report.study import Study

CONTENTS = "contents"  # the coordinate that tells runs of equal settings apart
PILOT = "pilot"  # the coordinate of the runs of a plan
STUDY = "study"  # the coordinate that tells several sweeps of one report apart
ABOUT_TEACHER = ("teacher.", "distill.")

Words = dict[str, str]


@dataclass(frozen=True)
class Trial:
    """A run that tried a choice of settings.

    Attributes:
        id: in its study.
        path: of its directory; None where it failed.
        fills: see `_fills`.
        lost: seconds that a failure took.
    """

    id: str
    path: Path | None
    fills: tuple[tuple[float, int], ...] = ()
    lost: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A run of a report.

    Attributes:
        coordinates: what its arm is, in words; all but the seeds.
        seeds: that tell it apart from other runs of the arm.
        state: finished, running, unfinished, waiting, failed, lost.
        run: its directory, where there is one.
        tuned: settings that were chosen for it, in words.
        ends: of these, the ones that are the smallest or largest of the tried ones, which is said by this word.
        trials: the runs that chose them.
        caching: seconds of filling its cached targets ahead of it, which no summary has.
    """

    coordinates: Words
    seeds: Words
    state: str
    run: Run | None
    error: str = ""
    tuned: Words = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    caching: float = 0.0
    ends: Words = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """Settings and results by dotted names; nothing of a run without a directory."""
        return {} if self.run is None else self.run.values

    @property
    def summary(self) -> dict[str, Any]:
        return {} if self.run is None else self.run.summary

    @property
    def finished(self) -> bool:
        return self.state == "finished" and self.run is not None

    @property
    def top1(self) -> float | None:
        """At the last epoch, of a finished run, in percent."""
        top1 = self.values.get("test_top1") if self.finished else None
        return 100 * top1 if isinstance(top1, int | float) else None


@dataclass(frozen=True)
class Gathered:
    """What a report is of.

    Attributes:
        entries: in the order in which they were found.
        studies: the sweeps among the sources.
        notes: what a reader should know: what was left out, what the studies warn of.
        axis_of: names that change together with each name.
    """

    entries: list[Entry]
    studies: list[Study]
    notes: list[str]
    axis_of: Mapping[str, frozenset[str]]
    warnings: list[str] = field(default_factory=list)


def caching_seconds(fills: Iterable[tuple[float, int]], values: Mapping[str, Any]) -> float:
    """Seconds of filling a run's cached targets; where one pass filled those of several teachers, its own part.

    Args:
        fills: seconds of each pass, and how many teachers it asked.
        values: of the run by dotted names.
    """
    teachers = values.get("teacher.models")
    count = len(teachers) if isinstance(teachers, list) else 1
    return sum(min(1.0, count / several) * seconds for seconds, several in fills)
