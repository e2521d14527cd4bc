"""A study: a recipe, and the axes along which its settings are varied. Pure, and without heavy imports.

Legend: a *point* of an axis sets one setting or several; a *run* is one point of every axis; an *arm* is the runs that
differ in their seeds only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kdprune.checks import check
from kdprune.config import Config, config_hash, dotted, from_dict, to_dict
from kdprune.messages import about, did_you_mean, listed, shown
from kdprune.pipeline.recipes import without_teacher

SECTIONS = ("grid", "zip", "arms", "exclude", "tune")
ARM = "arm"  # the coordinate of named arms

# A sweep's own, or what its runs are named by: no result depends on them.
_NO_AXES = {"output", "name", "baseline", "remake", "log_with", "track_energy", "seeds.role"}

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


def read_study(name: str, base: Config, sections: Mapping[str, Any]) -> Study:
    """Read the sections of a study file, and refuse what is wrong with them.

    Args:
        base: the settings of all runs.
        sections: `grid` (setting → values), `zip` (settings whose values go together, or a list of such), `arms` (name
            → settings), `exclude` (a list of coordinates), `tune` (setting → values, or names of grid axes).

    Raises:
        ValueError: an unknown name, a value of another type, an axis without values, a setting that is given twice.
    """
    grid = _settings(sections.get("grid"), "grid")
    tuned = _tuned(sections.get("tune"), grid)
    axes = [_axis([setting], [values], "grid") for setting, values in _lists(grid, "grid")]
    for group in _groups(sections.get("zip")):
        names, values = zip(*_lists(group, "zip"), strict=True)
        axes.append(_axis(names, values, "zip"))
    if sections.get("arms") is not None:
        axes.append(_arms(sections["arms"]))
    if not axes and not tuned:
        raise ValueError("grid: no axis given; allowed are settings with their values, as in {seed: [0, 1, 2]}")
    _check_once(axes, tuned)
    axes = [[_typed(point, base) for point in axis] for axis in axes]
    tuned = {name: [_value(name, value, base, "tune") for value in values] for name, values in tuned.items()}
    return Study(name, base, axes, _excluded(sections.get("exclude"), axes, base), tuned)


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
    return changed if changed.teacher.models else without_teacher(changed)


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
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(content: Any, section: str) -> Settings:
    """A section as settings by dotted names, each of which there is."""
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(f"{section}: {shown(content)} given, allowed are settings by name")
    flat = dotted(dict(content))
    known = [name for name in dotted(to_dict(Config())) if name not in _NO_AXES]
    for name in flat:
        if name in _NO_AXES:
            raise ValueError(f"{section}.{name}: runs of a sweep cannot differ in it; they are named by what they are")
        if name not in known:
            near = did_you_mean(name, known, most=3, write=str)
            raise ValueError(f"{section}: unknown setting {name!r}{near} (kdprune train --help shows all)")
    return flat


def _lists(settings: Settings, section: str) -> Iterator[tuple[str, list[Any]]]:
    for name, values in settings.items():
        if not isinstance(values, list | tuple):
            raise ValueError(f"{section}.{name}: {shown(values)} given, allowed is a list of values, such as [A, B]")
        if not values:
            raise ValueError(f"{section}.{name}: an empty list given, allowed are one value or more")
        yield name, list(values)


def _axis(names: Sequence[str], values: Sequence[Sequence[Any]], section: str) -> list[Point]:
    """Points along which one setting changes, or several together."""
    if len({len(column) for column in values}) > 1:
        lengths = ", ".join(f"{len(column)} of {name}" for name, column in zip(names, values, strict=True))
        raise ValueError(f"{section}: {lengths} given, allowed are as many values of each, since they go together")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    if twice := [row for index, row in enumerate(rows) if row in rows[:index]]:
        raise ValueError(f"{section}.{', '.join(names)}: {', '.join(map(shown, twice[0].values()))} given twice")
    return [Point(row, row, section) for row in rows]


def _groups(content: Any) -> list[Settings]:
    """The zipped axes: one, or a list of them."""
    parts = content if isinstance(content, list) else [] if content is None else [content]
    return [group for part in parts if (group := _settings(part, "zip"))]


def _arms(content: Any) -> list[Point]:
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"arms: {shown(content)} given, allowed are names with the settings of each")
    points = []
    for name, settings in content.items():
        label = value_words(name)  # YAML reads a bare `none` as text, and `null` as nothing
        section = f"arms.{label}"
        points.append(Point({ARM: label}, _settings(settings, section), section))
    labels = [point.coordinates[ARM] for point in points]
    if twice := [label for index, label in enumerate(labels) if label in labels[:index]]:
        raise ValueError(f"arms: {twice[0]!r} is the name of two")
    return points


def _tuned(content: Any, grid: Settings) -> Settings:
    """Settings to choose; axes of the grid that are named here leave it."""
    if isinstance(content, str):
        content = [name.strip() for name in content.split(",")]
    if isinstance(content, list):
        tuned = {}
        for name in content:
            if name not in grid:
                near = did_you_mean(name, grid, write=str)
                raise ValueError(f"tune: {shown(name)} is no axis of the grid{near} (allowed: {listed(list(grid))})")
            tuned[name] = grid.pop(name)
    else:
        tuned = _settings(content, "tune")
    if seeds := [name for name in tuned if is_seed(name)]:
        raise ValueError(f"tune.{seeds[0]}: a seed is nothing to choose")
    for name, values in _lists(tuned, "tune"):
        _axis([name], [values], "tune")
    return tuned


def _check_once(axes: Sequence[Sequence[Point]], tuned: Settings) -> None:
    """Refuse a setting that two axes set."""
    owners = [set().union(*(point.settings for point in axis)) for axis in axes] + [set(tuned)]
    for one, other in itertools.combinations(owners, 2):
        if both := sorted(one & other):
            raise ValueError(f"{both[0]}: given on two axes (of grid, zip, arms and tune); allowed is one")


def _typed(point: Point, base: Config) -> Point:
    """A point with its values as the settings' types have them."""
    typed = {name: _value(name, value, base, point.section) for name, value in point.settings.items()}
    return Point(typed if point.coordinates == point.settings else point.coordinates, typed, point.section)


def _value(name: str, value: Any, base: Config, section: str) -> Any:
    """A value as its setting's type has it; a wrong one is named with its axis."""
    try:
        return dotted(to_dict(with_settings(_with_a_teacher(base), {name: value})))[name]
    except ValueError as error:
        raise ValueError(f"{section}.{name}: {str(error).removeprefix(f'--{name}: ')}") from None


def _with_a_teacher(base: Config) -> Config:
    """Settings in which those about a teacher are kept."""
    return base if base.teacher.models else with_settings(base, {"teacher.models": ["any"]})


def _excluded(content: Any, axes: Sequence[Sequence[Point]], base: Config) -> list[dict[str, list[Any]]]:
    """What is left out, with each value as a list of values; one that the grid does not have is refused."""
    values: dict[str, list[Any]] = {}
    for axis in axes:
        for point in axis:
            for name, value in point.coordinates.items():
                values.setdefault(name, []).append(value)
    found = []
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        if not isinstance(part, Mapping) or not part:
            raise ValueError(f"exclude: {shown(part)} given, allowed are axes with the values that are left out")
        excluded: dict[str, list[Any]] = {}
        for name, given in dotted(dict(part)).items():
            if name not in values:
                near = did_you_mean(name, values, write=str)
                raise ValueError(f"exclude: {name!r} is no axis{near} (allowed: {', '.join(values)})")
            several = given if isinstance(given, list) and given not in values[name] else [given]
            if name != ARM:
                several = [_value(name, value, base, "exclude") for value in several]
            for value in several:
                if not any(_same(value, known) for known in values[name]):
                    allowed = ", ".join(map(value_words, values[name]))
                    raise ValueError(f"exclude.{name}: {shown(value)} is no value of this axis (allowed: {allowed})")
            excluded[name] = several
        found.append(excluded)
    return found


def _is_at(coordinates: Settings, excluded: Mapping[str, Sequence[Any]]) -> bool:
    return all(any(_same(coordinates[name], value) for value in values) for name, values in excluded.items())


def _same(one: Any, other: Any) -> bool:
    """Equal as a person sees it: 15 and 15.0, nothing and an empty list, a name and a list of it."""
    return one == other or value_words(one) == value_words(other)
