"""Figures of analyses, as PNGs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdprune.analysis.noise import Suspects
from kdprune.pipeline.drawing import FAINT, INK, new_figure, save, short, style

if TYPE_CHECKING:
    pass

RIGHT, WRONG, LINE = "#9db8d8", "#c8443a", "#2a78d6"
BINS = 60
NAMED = 40  # classes that are named one by one

Row = Mapping[str, Any]


def draw_noise(suspects: Mapping[str, Suspects], is_wrong: np.ndarray | None, path: Path) -> Path:
    """A histogram of the scores of each detector, with its threshold; of right and wrong labels where they are known,
    each as a share of its own kind, since wrong ones are few."""
    figure = new_figure(4.6 * len(suspects), 3.8)
    panels = np.atleast_1d(figure.subplots(1, len(suspects)))
    for axes, (name, found) in zip(panels, suspects.items(), strict=True):
        finite = np.isfinite(found.scores.values)
        values = found.scores.values[finite]
        edges = np.histogram_bin_edges(values, BINS)
        if is_wrong is None:
            axes.hist(values, edges, color=RIGHT, log=True)
        else:
            for label, mask, color in (("right", ~is_wrong, RIGHT), ("flipped", is_wrong, WRONG)):
                of_kind = values[mask[finite]]
                weights = np.full(len(of_kind), 100 / max(1, len(of_kind)))
                axes.hist(of_kind, edges, weights=weights, color=color, alpha=0.65, label=f"{label} ({len(of_kind):,})")
            axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        if np.isfinite(found.threshold):
            axes.axvline(found.threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        style(axes, f"score ({found.scores.hard} is suspect; dashed: the threshold)",
               "samples" if is_wrong is None else "% of the right, of the flipped labels")  # fmt: skip
        axes.set_title(name, fontsize=10, color=INK, loc="left")
    return save(figure, path)


def draw_lines(rows: Sequence[Row], x: str, y: str, line: str, labels: Mapping[str, str], path: Path) -> Path:
    """A line for each value of a column, from light to dark in their order.

    Args:
        x, y, line: columns.
        labels: of the axes and the legend, by column.
    """
    from matplotlib import colormaps

    figure = new_figure(7, 4.4)
    axes = figure.subplots()
    names = list(dict.fromkeys(row[line] for row in rows))
    shades = colormaps["viridis_r"](np.linspace(0.08, 0.95, len(names)))
    for name, shade in zip(names, shades, strict=True):
        own = [row for row in rows if row[line] == name]
        axes.plot(
            [row[x] for row in own],
            [row[y] for row in own],
            "o-",
            color=shade,
            markersize=4,
            clip_on=False,
            label=str(name),
        )
    style(axes, labels[x], labels[y])
    axes.set_ylim(bottom=0)
    axes.legend(title=labels[line], frameon=False, fontsize=8, title_fontsize=8, loc="center left",
                bbox_to_anchor=(1, 0.5))  # fmt: skip
    return save(figure, path)


def draw_line(alphas: Sequence[float], errors: Sequence[float], ends: tuple[str, str], path: Path) -> Path:
    """The error from one network to another, and the mean of the two ends, above which a barrier rises."""
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    percent = 100 * np.array(errors)
    axes.axhline(percent[[0, -1]].mean(), color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="mean of the ends")
    axes.plot(alphas, percent, "o-", color=LINE, markersize=4, clip_on=False)
    first, second = (name if len(name) <= 24 else f"…{name[-22:]}" for name in ends)  # runs differ at their ends
    style(axes, f"α: from {first} (0) to {second} (1)", "held-out error, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return save(figure, path)


def draw_barrier(rows: Sequence[Row], x: str, label: str, level: float, path: Path) -> Path:
    """The barrier over a column, and the level from which on it counts as one.

    Args:
        label: of that column.
    """
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    axes.axhline(100 * level, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=f"{100 * level:g}%")
    axes.plot([row[x] for row in rows], [100 * row["barrier"] for row in rows], "o-", color=LINE, markersize=4,
              clip_on=False)  # fmt: skip
    style(axes, label, "error barrier, points of held-out error")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return save(figure, path)


def draw_classes(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Accuracy over kept share of each class; and each class's accuracy before and after, the worst hit first."""
    figure = new_figure(11, max(3.8, 0.28 * min(len(rows), NAMED) + 1.4))
    left, right = figure.subplots(1, 2)
    share, difference = (np.array([100 * row[name] for row in rows]) for name in ("kept_share", "difference"))
    left.axhline(0, color=FAINT, linewidth=0.8)
    left.scatter(share, difference, color=LINE, s=22, alpha=0.8)
    if len(rows) <= NAMED // 2:
        for x, y, row in zip(share, difference, rows, strict=True):
            left.annotate(short(row["class"]), (x, y), (4, 4), textcoords="offset points", fontsize=7, color=FAINT)
    style(left, "kept, % of the class", "change of held-out accuracy, points")
    shown = rows[:NAMED]
    places = np.arange(len(shown))[::-1]
    full, pruned = (np.array([100 * row[name] for row in shown]) for name in ("full", "pruned"))
    right.hlines(places, full, pruned, color=RIGHT, linewidth=2)
    right.scatter(full, places, color=FAINT, s=20, label="full", zorder=2)
    right.scatter(pruned, places, color=WRONG, s=20, label="pruned", zorder=3)
    right.set_yticks(places, [short(row["class"]) for row in shown])
    style(right, "held-out accuracy, %", "" if len(shown) == len(rows) else f"the {NAMED} worst hit of {len(rows):,}")
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK, x=0.01, ha="left")
    return save(figure, path)
