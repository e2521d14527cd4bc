"""A figure's panels for plotly.js, as plain JSON values. Colours of ink and paper are the page's, and set there.

plotly.js reads texts as a small HTML, so all that comes from data is escaped here. `meta.series` of a trace says which
toggle hides it.
"""

from __future__ import annotations

import html
import math
from itertools import pairwise
from typing import Any

from kdprune.report.charts import (
    COLOURS,
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
    is_log,
    places,
    style_of,
)

HEIGHT, ROW = 340, 19  # pixels: of a panel, of a name in one
_HOVER = {"hoverinfo": "text", "hoverlabel": {"align": "left"}, "showlegend": False}

Trace = dict[str, Any]


def plotly_figures(chart: Chart) -> list[dict[str, Any]]:
    """A figure (`data`, `layout`) for each panel."""
    return [_figure(panel, chart) for panel in chart.panels]


def said(text: str) -> str:
    """A text as plotly shows it letter by letter."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _figure(panel: Panel, chart: Chart) -> dict[str, Any]:
    traces: list[Trace] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    log_x = is_log(panel)
    for mark in panel.marks:
        if isinstance(mark, Rule):
            shapes.append(_rule_shape(mark))
            notes.append(_rule_note(mark, log_x))
        else:
            traces += _traces(mark)
            notes += _cell_words(mark) if isinstance(mark, Heat) else []
    x: dict[str, Any] = {"title": {"text": said(panel.x), "standoff": 8}, "zeroline": False, "automargin": True}
    y: dict[str, Any] = {"title": {"text": said(panel.y), "standoff": 8}, "zeroline": False, "automargin": True}
    if log_x:
        span, most = decades(panel), max(places(panel))
        # A format of its own: plotly writes the first figure alone between two powers of ten, "5" for 5,000.
        x |= {"type": "log", "dtick": "D1" if span < 1 else "D2" if span < 3 else 1}
        x["tickformat"] = "~s" if most >= 1000 else "~g"
    if panel.ticks is not None:
        x |= {"tickmode": "array", "tickvals": list(panel.ticks), "ticktext": list(panel.ticks.values())}
        x.pop("dtick", None)
    if panel.names:
        y |= {
            "tickmode": "array",
            "tickvals": list(range(len(panel.names))),
            "ticktext": [said(_cut(n)) for n in panel.names],
        }
        y["range"] = [-0.6, len(panel.names) - 0.4]
    if any(isinstance(mark, Heat) for mark in panel.marks):
        x["type"] = y["type"] = "category"
        x["showgrid"] = y["showgrid"] = False
    if any(isinstance(mark, Bars) and mark.edges and isinstance(mark.edges[0], str) for mark in panel.marks):
        x |= {"type": "category", "showticklabels": sum(isinstance(m, Bars) for m in panel.marks) <= 24}
    height = max(HEIGHT, 110 + ROW * len(panel.names))
    layout: dict[str, Any] = {
        "xaxis": x, "yaxis": y, "shapes": shapes, "annotations": notes, "barmode": "stack", "bargap": 0.02,
        "height": height, "margin": {"l": 56, "r": 16, "t": 34 if panel.title else 12, "b": 48}, "hovermode": "closest",
        "showlegend": False,
    }  # fmt: skip
    if panel.title:
        layout["title"] = {
            "text": said(_cut(panel.title, 60)),
            "x": 0,
            "xref": "paper",
            "font": {"size": 13},
            "y": 0.985,
            "yanchor": "top",
        }
    return {"data": traces, "layout": layout, "label": f"{chart.title}. {panel.title}"}


def _traces(mark: Mark) -> list[Trace]:
    if isinstance(mark, Line):
        return _line(mark)
    if isinstance(mark, Points):
        return [_points(mark)]
    if isinstance(mark, Bars):
        return [_bars(mark)]
    assert isinstance(mark, Heat)
    return _heat(mark)


def _line(mark: Line) -> list[Trace]:
    colour = NEUTRAL if mark.series is None else colour_of(mark.series)
    style = "solid" if mark.series is None else style_of(mark.series)
    meta = {"series": None if mark.series is None else [mark.series]}
    x, y = list(mark.x), list(mark.y)
    line = {
        "type": "scatter", "mode": "lines+markers" if mark.markers and not mark.faint else "lines", "x": x, "y": y,
        "line": {"color": colour, "width": 1 if mark.faint else 2, "dash": "dot" if mark.faint else style},
        "marker": {"size": 7}, "meta": meta, **_HOVER,
    }  # fmt: skip
    if mark.faint:
        line["hoverinfo"] = "skip"
    elif isinstance(mark.text, str):
        line |= {"text": said(mark.text), "hoverinfo": "text+x+y"}
    else:
        line["text"] = list(map(said, mark.text))
    if mark.sd is None or not any(mark.sd):
        return [line]
    above = [value + sd for value, sd in zip(y, mark.sd, strict=True)]
    below = [value - sd for value, sd in zip(y, mark.sd, strict=True)]
    band = {
        "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*above, *reversed(below)], "fill": "toself",
        "fillcolor": faint(colour, 0.13), "line": {"width": 0}, "meta": meta, **_HOVER, "hoverinfo": "skip",
    }  # fmt: skip
    return [band, line]


def _points(mark: Points) -> Trace:
    colour = NEUTRAL if mark.series is None else colour_of(mark.series)
    trace: Trace = {
        "type": "scatter", "mode": "markers", "x": list(mark.x), "y": list(mark.y), "text": list(map(said, mark.text)),
        "marker": {"size": 10, "color": colour, "symbol": "circle-open" if mark.hollow else "circle",
                   "line": {"width": 2, "color": colour}},
        "meta": {"series": None if mark.series is None else [mark.series]}, **_HOVER,
    }  # fmt: skip
    if mark.sd is not None and any(mark.sd):
        trace["error_y"] = {
            "type": "data",
            "array": list(mark.sd),
            "width": 0,
            "thickness": 1.5,
            "color": faint(colour, 0.55),
        }
    return trace


def _bars(mark: Bars) -> Trace:
    named = bool(mark.edges) and isinstance(mark.edges[0], str)
    colour = colour_of(mark.series[0]) if mark.coloured else COLOURS[0] if mark.strong else faint(NEUTRAL, 0.4)
    trace: Trace = {
        "type": "bar", "y": list(mark.heights), "text": list(map(said, mark.text)), "textposition": "none",
        "marker": {"color": colour, "line": {"width": 0}}, "meta": {"series": list(mark.series) or None}, **_HOVER,
    }  # fmt: skip
    if named:
        return {**trace, "x": [said(_cut(str(name), 30)) for name in mark.edges], "width": 0.7}
    edges = [float(edge) for edge in mark.edges]
    widths = [high - low for low, high in pairwise(edges)]
    return {**trace, "x": edges[:-1], "width": widths, "offset": 0}


def _heat(mark: Heat) -> list[Trace]:
    """Cells, and rings around the best ones."""
    heat: Trace = {
        "type": "heatmap", "x": list(mark.x), "y": list(mark.y), "z": [list(row) for row in mark.values],
        "text": [list(map(said, row)) for row in mark.text], "xgap": 3, "ygap": 3,
        "colorscale": [[0, faint(COLOURS[0], 0.06)], [1, faint(COLOURS[0], 0.6)]],
        "colorbar": {"title": {"text": said(mark.legend), "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "meta": {"series": None, "cells": [list(row) for row in mark.series]}, **_HOVER,
    }  # fmt: skip
    rings: Trace = {
        "type": "scatter", "mode": "markers", "x": [mark.x[c] for _, c in mark.marked],
        "y": [mark.y[r] for r, _ in mark.marked],
        "marker": {"size": 46, "symbol": "circle-open", "line": {"width": 2.5}, "color": COLOURS[1]},
        "meta": {"series": None}, **_HOVER, "hoverinfo": "skip",
    }  # fmt: skip
    return [heat, rings]


def _cell_words(mark: Heat) -> list[dict[str, Any]]:
    return [
        {"x": c, "y": r, "text": said(word), "showarrow": False}  # names that are numbers would be taken for places
        for r, row in enumerate(mark.words)
        for c, word in enumerate(row)
        if word
    ]


def _rule_shape(mark: Rule) -> dict[str, Any]:
    line = {"type": "line", "line": {"color": NEUTRAL, "width": 1.2, "dash": "dash"}}
    if mark.vertical:
        return {**line, "x0": mark.at, "x1": mark.at, "y0": 0, "y1": 1, "yref": "paper"}
    return {**line, "y0": mark.at, "y1": mark.at, "x0": 0, "x1": 1, "xref": "paper"}


def _rule_note(mark: Rule, log_x: bool) -> dict[str, Any]:
    """A word beside the line; plotly places annotations by the logarithm where the axis has one."""
    at = math.log10(mark.at) if log_x and mark.vertical else mark.at
    place = {"x": at, "y": 0, "yref": "paper"} if mark.vertical else {"x": 1, "xref": "paper", "y": at}
    return {**place, "text": said(mark.word), "showarrow": False, "xanchor": "left", "yanchor": "bottom", "xshift": 3}


def faint(colour: str, opacity: float) -> str:
    """'#rrggbb' as a colour that lets through what is behind it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _cut(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
