"""A study: a recipe, and the axes along which its settings are varied. Pure, and without heavy imports.

Legend: a *point* of an axis sets one setting or several; a *run* is one point of every axis; an *arm* is the runs that
differ in their seeds only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kdprune.checks import check
from kdprune.config import Config, config_hash, from_dict, to_dict
from kdprune.messages import about
from kdprune.pipeline.recipes import without_teacher

ARM = "arm"  # the coordinate of named arms

Settings = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One place on an axis: how tables call it, and the settings that it stands for.

    Attributes:
        section: of the study file, where it was given.
    """

    coordinates: Settings
    settings: Settings
    section: str


@dataclass(frozen=True)
class Run:
    """A training of a study.

    Attributes:
        coordinates: where it stands on the axes.
        config: all of its settings.
    """

    coordinates: Settings
    config: Config

    @property
    def arm(self) -> Settings:
        """Its coordinates but for the seeds."""
        return {name: value for name, value in self.coordinates.items() if not is_seed(name)}

    @cached_property
    def id(self) -> str:
        """Equal for runs of equal settings."""
        return f"run-{config_hash(self.config)}"


@dataclass(frozen=True)
class Study:
    """A recipe and its axes.

    Attributes:
        name: of the folder for its results.
        axes: each a list of points; every run takes one of each.
        exclude: coordinates, each with the values that are left out together.
        tuned: values to choose from for each arm, by setting.
    """

    name: str
    base: Config
    axes: Sequence[Sequence[Point]]
    exclude: Sequence[Mapping[str, Sequence[Any]]] = ()
    tuned: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        """All runs, in the order of the axes; where settings are tuned, with the first value of each.

        Raises:
            ValueError: none is left, or the settings of one do not fit together.
        """
        if not self._runs:
            raise ValueError("exclude: no run of the grid is left")
        return self._runs

    @cached_property
    def _runs(self) -> list[Run]:
        first = {name: values[0] for name, values in self.tuned.items()}
        found = [self._run(points, first) for points in itertools.product(*self.axes)]
        return [run for run in found if run is not None]

    def _run(self, points: Sequence[Point], tuned: Settings) -> Run | None:
        coordinates = {name: value for point in points for name, value in point.coordinates.items()}
        if any(_is_at(coordinates, excluded) for excluded in self.exclude):
            return None
        settings = {name: value for point in points for name, value in point.settings.items()}
        with about(words(coordinates)):
            config = with_settings(self.base, {**tuned, **settings})
            check(config)
        return Run(coordinates, config)


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """The settings of a run of a sweep: with others by dotted names, and without what is a single run's.

    A run without a teacher has no settings about teachers, so that it is one run whatever the axes say of them.
    """
    content = to_dict(config)
    content |= {"name": None, "baseline": False}  # an arm without a teacher takes its place
    for name, value in settings.items():
        *groups, last = name.split(".")
        place = content
        for group in groups:
            place = place[group]
        place[last] = value
    changed = from_dict(content)
    if changed.teacher.models:
        return changed
    plain = without_teacher(changed)
    plain.seeds.teacher = None  # else runs that are one would count as several repetitions
    return plain


def is_seed(name: str) -> bool:
    """Whether an axis tells repetitions apart, and no arms."""
    return name == "seed" or name.startswith("seeds.")


def words(settings: Mapping[str, Any]) -> str:
    """Settings for a person: "train.lr 0.1, seed 0"."""
    return ", ".join(f"{name} {value_words(value)}" for name, value in settings.items())


def value_words(value: Any) -> str:
    """A value for a table; none is that of an empty list, too."""
    if value is None or value == [] or value == "":
        return "none"
    if isinstance(value, list):
        return "+".join(map(value_words, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # values that differ in the seventh digit are two
    return str(value)


def _is_at(coordinates: Settings, excluded: Mapping[str, Sequence[Any]]) -> bool:
    return all(any(same(coordinates[name], value) for value in values) for name, values in excluded.items())


def same(one: Any, other: Any) -> bool:
    """Equal as a person sees it: 15 and 15.0, nothing and an empty list, a name and a list of it."""
    return one == other or value_words(one) == value_words(other)
