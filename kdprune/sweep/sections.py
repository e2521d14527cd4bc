"""The sections of a study file: read into a study, and whatever is wrong with them refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdprune.config import Config, dotted, to_dict
from kdprune.messages import did_you_mean, listed, shown
from kdprune.sweep.study import ARM, Point, Settings, Study, is_seed, same, value_words, with_settings

SECTIONS = ("grid", "zip", "arms", "exclude", "tune")

# A sweep's own, or what its runs are named by: no result depends on them.
_NO_AXES = {"output", "name", "baseline", "remake", "log_with", "track_energy", "seeds.role"}


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
    tuned = {setting: [_value(setting, value, base, "tune") for value in values] for setting, values in tuned.items()}
    for axis in axes:
        _check_different([point.coordinates for point in axis], axis[0].section)
    for setting, values in tuned.items():
        _check_different([{setting: value} for value in values], "tune")
    return Study(name, base, axes, _excluded(sections.get("exclude"), axes, base), tuned)


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
    return [Point(row, row, section) for row in rows]


def _check_different(rows: Sequence[Settings], section: str) -> None:
    """Refuse points of an axis that are the same, with their values as the settings' types have them."""
    if twice := [row for index, row in enumerate(rows) if row in rows[:index]]:
        raise ValueError(f"{section}.{', '.join(twice[0])}: {', '.join(map(shown, twice[0].values()))} given twice")


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
                if not any(same(value, known) for known in values[name]):
                    allowed = ", ".join(map(value_words, values[name]))
                    raise ValueError(f"exclude.{name}: {shown(value)} is no value of this axis (allowed: {allowed})")
            excluded[name] = several
        found.append(excluded)
    return found
