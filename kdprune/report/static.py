"""A figure for a paper: PNG or SVG, drawn by matplotlib from the same description as the page's."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdprune.files import write_whole
from kdprune.pipeline.drawing import FAINT, INK, new_figure, short, style
from kdprune.report.charts import (
    NEUTRAL,
    Bars,
    Chart,
    Heat,
    Line,
    Mark,
    Panel,
    Points,
    Rule,
    colour_of,
    decades,
    in_units,
    is_log,
    style_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
COLUMNS, LEGEND = 3, 20  # panels beside each other; arms that a legend names

_DASHES: dict[str, Any] = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (5, 2, 1, 2))}


def draw_static(chart: Chart, series: list[str], path: Path) -> Path:
    """Write a figure; the ending of the path says how.

    Args:
        series: names of the arms, for the legend.
    """
    columns = min(COLUMNS, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    tallest = max(max((len(panel.names) for panel in chart.panels), default=0) * 0.22 + 1.0, 3.1)
    used = sorted({mark.series for panel in chart.panels for mark in panel.marks
                   if isinstance(mark, Line | Points) and mark.series is not None})  # fmt: skip
    named = used if len(used) <= LEGEND else []
    wide = 5.6 if columns == 1 else 4.0
    figure = new_figure(wide * columns + (1.6 if named else 0), tallest * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(grid.flat):
        if index < len(chart.panels):
            _draw(axes, chart.panels[index])
        else:
            axes.set_visible(False)
    figure.suptitle(chart.title, fontsize=11, color=INK, x=0.01, ha="left")
    if named:
        from matplotlib.lines import Line2D

        lines = [
            Line2D([], [], color=colour_of(s), linestyle=_DASHES[style_of(s)], marker="o", markersize=4) for s in named
        ]
        labels = [_plain(short(series[s])) for s in named]
        figure.legend(lines, labels, loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:]))
    return path


def _draw(axes: Axes, panel: Panel) -> None:
    style(axes, _plain(panel.x), _plain(panel.y))
    if is_log(panel):
        axes.set_xscale("log")
    bottoms: Any = 0.0
    for mark in panel.marks:
        bottoms = _mark(axes, mark, bottoms)
    if panel.log_x:
        _number(axes, panel)
    if panel.ticks is not None:
        axes.set_xticks(list(panel.ticks), list(panel.ticks.values()))
        axes.minorticks_off()
    if panel.names:
        axes.set_yticks(range(len(panel.names)), [_plain(short(name)) for name in panel.names])
    if any(isinstance(mark, Bars) and not mark.coloured for mark in panel.marks):
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    axes.set_title(_plain(panel.title), fontsize=9, color=INK, loc="left")


def _number(axes: Axes, panel: Panel) -> None:
    """Whole numbers along an axis of sizes or costs, '5k' and no power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if is_log(panel):
        span = decades(panel)
        steps = range(1, 10) if span < 0.6 else (1, 2, 5) if span < 3 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: in_units(value))


def _mark(axes: Axes, mark: Mark, bottoms: Any) -> Any:
    """Draw a mark; where further bars begin."""
    if isinstance(mark, Bars):
        return _bars(axes, mark, bottoms)
    if isinstance(mark, Heat):
        _heat(axes, mark)
    elif isinstance(mark, Rule):
        (axes.axvline if mark.vertical else axes.axhline)(mark.at, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(mark.at, 0.01, f" {mark.word}", transform=axes.get_xaxis_transform(), fontsize=7, color=FAINT)
    else:
        colour = NEUTRAL if mark.series is None else colour_of(mark.series)
        if isinstance(mark, Points):
            axes.errorbar(
                mark.x, mark.y, mark.sd, fmt="o", color=colour, markersize=5, elinewidth=1,
                markerfacecolor="none" if mark.hollow else colour,
            )  # fmt: skip
        else:
            dash = _DASHES["dot" if mark.faint or mark.series is None else style_of(mark.series)]
            marker = "o" if mark.markers and not mark.faint else None
            axes.plot(mark.x, mark.y, color=colour, linestyle=dash, marker=marker, markersize=4,
                      linewidth=0.9 if mark.faint else 1.6)  # fmt: skip
            if mark.sd is not None:
                low, high = ([y + side * sd for y, sd in zip(mark.y, mark.sd, strict=True)] for side in (-1, 1))
                axes.fill_between(mark.x, low, high, color=colour, alpha=0.12, linewidth=0)
    return bottoms


def _bars(axes: Axes, mark: Bars, bottoms: Any) -> Any:
    colour = colour_of(mark.series[0]) if mark.coloured else "#2f7ed8" if mark.strong else "#d4d2ca"
    if mark.edges and isinstance(mark.edges[0], str):
        axes.bar([_plain(short(str(name))) for name in mark.edges], mark.heights, 0.7, color=colour)
        axes.tick_params(axis="x", rotation=40)
        return bottoms
    edges = [float(edge) for edge in mark.edges]
    widths = [high - low for low, high in pairwise(edges)]
    axes.bar(edges[:-1], mark.heights, widths, bottom=bottoms, align="edge", color=colour, label=mark.name)
    return list(mark.heights)


def _heat(axes: Axes, mark: Heat) -> None:
    import numpy as np

    values = np.array([[np.nan if v is None else v for v in row] for row in mark.values])
    axes.imshow(values, cmap="Blues", aspect="auto", origin="lower", alpha=0.75)
    for row, words in enumerate(mark.words):
        for column, word in enumerate(words):
            axes.text(column, row, word, ha="center", va="center", fontsize=8, color=INK)
    axes.scatter([c for _, c in mark.marked], [r for r, _ in mark.marked], s=900, facecolors="none",
                 edgecolors="#e8793a", linewidths=1.8)  # fmt: skip
    axes.set_xticks(range(len(mark.x)), list(mark.x))
    axes.set_yticks(range(len(mark.y)), list(mark.y))
    axes.spines[:].set_visible(False)


def _plain(text: str) -> str:
    """A text of which matplotlib reads nothing as a formula."""
    return text.replace("$", r"\$")
