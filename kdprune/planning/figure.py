"""A panel for each arm: its runs, the curve through them with its band, and the run that is planned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdprune.pipeline.drawing import FAINT, INK, new_figure, save, style
from kdprune.planning.forecast import Forecast

LINE, BAND, CHOSEN = "#2a78d6", "#9db8d8", "#c8443a"
COLUMNS, POINTS, SHOWN = 4, 24, 24


def draw(forecasts: Sequence[Forecast], judge: str, path: Path) -> Path:
    """Write the figure, the best arm first.

    Args:
        judge: the result by which arms are judged.
    """
    shown = forecasts[:SHOWN]
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(3.2 * columns, 2.6 * rows + 0.4)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).reshape(-1)
    for axes, one in zip(panels, shown, strict=False):
        first, last = min(run.steps for run in one.runs), max(one.steps, max(run.steps for run in one.runs))
        steps = np.unique(np.geomspace(first, last, POINTS).round().astype(int))
        along = [one.curve.predict(int(step)) for step in steps]
        low, middle, high = ([100 * getattr(p, name) for p in along] for name in ("low", "median", "high"))
        axes.fill_between(steps, low, high, color=BAND, alpha=0.45, linewidth=0)
        axes.plot(steps, middle, color=LINE, linewidth=1.5)
        axes.scatter([run.steps for run in one.runs], [100 * run.top1 for run in one.runs], s=10, color=INK, zorder=3)
        reached = one.predicted[judge]
        color = CHOSEN if one is forecasts[0] else FAINT
        axes.plot([one.steps] * 2, [100 * reached.low, 100 * reached.high], color=color, linewidth=2)
        axes.scatter([one.steps], [100 * reached.median], s=28, color=color, zorder=4)
        axes.set_xscale("log")
        style(axes, "steps", "top-1 %")
        axes.label_outer()
        axes.set_title(one.arm.name.replace(", ", "\n"), fontsize=7, color=INK, loc="left")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    return save(figure, path)
