"""What a figure shows, whoever draws it: the page as plotly figures, papers as PNG or SVG. Pure.

Of everything that stands for arms the `series` is said: the index of its toggle and of its colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Told apart by most eyes on white and on black; after the last, other line styles.
COLOURS = ("#2f7ed8", "#e8793a", "#2ca58d", "#b658a5", "#c79a1b", "#7a6bd8", "#d64550", "#17a2b8", "#7f9c3b", "#9c6b4f")
STYLES = ("solid", "dash", "dot", "dashdot")
NEUTRAL = "#8a8f98"  # of what is no arm's


@dataclass(frozen=True)
class Line:
    """Points joined by a line, with a band of ± sd where there are any.

    Attributes:
        text: of each point, shown where the pointer is; or one for all, shown with the point's place.
        series: None for what no toggle hides.
        faint: a thin line behind the others, without markers.
    """

    x: Sequence[float]
    y: Sequence[float]
    text: Sequence[str] | str
    series: int | None = None
    sd: Sequence[float] | None = None
    name: str = ""
    faint: bool = False
    markers: bool = True


@dataclass(frozen=True)
class Points:
    """Points; with bars of ± sd where there are any, and with an outline if they are to be seen first."""

    x: Sequence[float]
    y: Sequence[float]
    text: Sequence[str]
    series: int | None = None
    sd: Sequence[float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Bars:
    """Bars between edges, stacked on those before; `strong` ones are what is looked at.

    Attributes:
        edges: one more than heights; or names, as many as heights.
        series: of all arms that it is of.
    """

    edges: Sequence[float] | Sequence[str]
    heights: Sequence[float]
    text: Sequence[str]
    name: str = ""
    strong: bool = True
    series: tuple[int, ...] = ()
    coloured: bool = False


@dataclass(frozen=True)
class Heat:
    """Cells by row (y) and column (x) with a value (None: no run), a word, and the series of each.

    Attributes:
        marked: (row, column) of the best cell of each column.
    """

    x: Sequence[str]
    y: Sequence[str]
    values: Sequence[Sequence[float | None]]
    words: Sequence[Sequence[str]]
    text: Sequence[Sequence[str]]
    series: Sequence[Sequence[int | None]]
    marked: Sequence[tuple[int, int]]
    legend: str


@dataclass(frozen=True)
class Rule:
    """A line across a panel."""

    at: float
    word: str
    vertical: bool = True


Mark = Line | Points | Bars | Heat | Rule


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        ticks: of the x axis: where, if not everywhere, and what is written there.
        names: of the y axis: what stands at 0, 1, …; a panel of many is higher.
    """

    title: str
    x: str
    y: str
    marks: Sequence[Mark]
    log_x: bool = False
    ticks: Mapping[float, str] | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """One figure of a report.

    Attributes:
        id: of its files and its place on the page.
        about: how to read it, in a sentence or two.
        left_out: what it does not show, in a line; "" where it shows all.
    """

    id: str
    title: str
    about: str
    panels: Sequence[Panel]
    left_out: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Missing:
    """A figure that there is not, and why."""

    title: str
    why: str


@dataclass
class Charts:
    """What there is to be seen of a section, and what there is not."""

    charts: list[Chart] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def add(self, one: Chart | Missing) -> None:
        if isinstance(one, Chart):
            self.charts.append(one)
        else:
            self.missing.append(one)


def places(panel: Panel) -> list[float]:
    """Where on the x axis of a panel something stands that a logarithmic axis can show."""
    return [x for mark in panel.marks if isinstance(mark, Line | Points) for x in mark.x if x > 0]


def decades(panel: Panel) -> float:
    """How many powers of ten the x axis of a panel spans."""
    found = places(panel)
    return math.log10(max(found) / min(found)) if found else 0.0


def is_log(panel: Panel) -> bool:
    """Whether the x axis of a panel is drawn by the logarithm. Within a factor of two it looks the same without, and
    has more round numbers."""
    return panel.log_x and decades(panel) >= math.log10(2)


def in_units(count: float) -> str:
    """'270k', '11.2M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def colour_of(series: int) -> str:
    return COLOURS[series % len(COLOURS)]


def style_of(series: int) -> str:
    return STYLES[series // len(COLOURS) % len(STYLES)]


def percent(mean: float, sd: float | None, n: int) -> str:
    """'94.15 ± 1.51 % (n = 3)'."""
    spread = "" if sd is None else f" ± {sd:.2f}"
    return f"{mean:.2f}{spread} % (n = {n})"
