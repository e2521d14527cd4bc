"""Figures of subsets: scores kept and dropped, deciles of difficulty, classes; overlaps and rank correlations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdprune.data.sources.base import Source
from kdprune.pipeline.contact_sheet import contact_sheet
from kdprune.pipeline.describe import Described, Description
from kdprune.pipeline.drawing import FAINT, INK, new_figure, save, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT, DROPPED = "#2a78d6", "#d4d2ca"
BINS = 60
NAMED = 25  # classes that a figure names one by one


def draw(description: Description, folder: Path, source: Source | None = None) -> list[Path]:
    """Draw everything that there is to be seen, and return the paths of the PNGs.

    Args:
        description: what is drawn.
        folder: where to.
        source: the training split, for contact sheets; None: there are none.
    """
    paths = []
    for described in description.subsets:
        paths.append(save(_subset_figure(description, described), folder / f"{described.name}.png"))
        if source is not None:
            paths.append(folder / f"{described.name}_images.png")
            contact_sheet(source, described, description.scores[0].difficulty, paths[-1])
    if len(description.subsets) > 1 or len(description.scores) > 1:
        paths.append(save(_overlap_figure(description), folder / "overlap.png"))
    return paths


def _subset_figure(description: Description, described: Described) -> Figure:
    has_classes = bool(description.sizes_C.any())
    figure = new_figure(15 if has_classes else 10, 4.2)
    axes = figure.subplots(1, 3 if has_classes else 2, width_ratios=[5, 4, 5][: 3 if has_classes else 2])
    _draw_scores(axes[0], description, described)
    _draw_deciles(axes[1], described)
    if has_classes:
        _draw_classes(axes[2], description, described)
    subset = described.subset
    figure.suptitle(
        f"{described.name}: {len(subset.ids):,} of {subset.total:,} samples kept "
        f"({100 * subset.keep_fraction:.3g}%){_how(subset.chosen)}",
        color=INK, fontsize=12, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _how(chosen: dict[str, Any]) -> str:
    """The choice in words: as it was written, or as it was resolved where nothing was written but a name."""
    if not (selector := str(chosen.get("selector", ""))):
        return ""
    words = [selector if "(" in selector else str(chosen.get("resolved", selector))]
    words += ["balanced"] if chosen.get("balanced") else []
    words += [f"class floor {chosen['class_floor']}"] if chosen.get("class_floor") else []
    return f" by {', '.join(words)}"


def _draw_scores(axes: Axes, description: Description, described: Described) -> None:
    """Stacked histogram of the finite scores."""
    scores = description.scores[0]
    finite = np.isfinite(scores.values)
    values = scores.values[finite]
    edges = np.histogram_bin_edges(values, bins=BINS)
    kept, _ = np.histogram(values[described.is_kept[finite]], edges)
    dropped, _ = np.histogram(values[~described.is_kept[finite]], edges)
    axes.bar(edges[:-1], kept, np.diff(edges), align="edge", color=KEPT, label="kept")
    axes.bar(edges[:-1], dropped, np.diff(edges), bottom=kept, align="edge", color=DROPPED, label="dropped")
    infinite = np.isinf(scores.values)
    note = f"; {infinite.sum():,} infinite, {(infinite & described.is_kept).sum():,} of them kept"
    style(axes, f"{description.names[0]} ({scores.hard} is hard)", "samples" + (note if infinite.any() else ""))
    axes.set_xlim(edges[0], edges[-1])
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _draw_deciles(axes: Axes, described: Described) -> None:
    parts = np.arange(1, len(described.shares) + 1)
    axes.bar(parts, 100 * described.shares, 0.8, color=KEPT)
    axes.axhline(100 * described.subset.keep_fraction, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    style(axes, "tenths of the samples, from the easiest to the hardest", "kept, % (dashed: of all)")
    axes.set_xticks(parts)
    axes.set_ylim(0, 105)


def _draw_classes(axes: Axes, description: Description, described: Described) -> None:
    """Kept share of each class, from the least kept."""
    scores = description.scores[0]
    present = np.flatnonzero(description.sizes_C)
    shares = 100 * described.counts_C[present] / description.sizes_C[present]
    order = np.argsort(shares, kind="stable")
    places = np.arange(len(order))
    axes.axvline(100 * described.subset.keep_fraction, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    if len(order) <= NAMED:
        axes.barh(places, shares[order], 0.75, color=KEPT)
        axes.set_yticks(places, [short(scores.classes[label]) for label in present[order]], fontsize=8)
        style(axes, "kept, % of the class (dashed: of all)", "")
    else:
        axes.fill_betweenx(places, shares[order], step="mid", color=KEPT)
        style(axes, "kept, % of the class (dashed: of all)", f"{len(order):,} classes, the least kept first")
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(0, max(105 if shares.max() > 60 else 1.1 * shares.max(), 1))


def _overlap_figure(description: Description) -> Figure:
    """Matrices: of subsets that share samples, of score files that agree on an order."""
    panels: list[tuple[Any, list[str], str]] = []
    if len(description.subsets) > 1:
        names = [described.name for described in description.subsets]
        panels.append((description.jaccard_SS, names, "overlap of subsets (Jaccard)"))
    if len(description.scores) > 1:
        panels.append((description.spearman_FF, list(description.names), "rank correlation (Spearman)"))
        panels.append((description.kendall_FF, list(description.names), "rank correlation (Kendall)"))
    sizes = [0.75 * len(names) for _, names, _ in panels]
    figure = new_figure(sum(sizes) + 2.2 * len(panels), max(sizes) + 1.6)
    for axes, (matrix, names, title) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), width_ratios=sizes)), panels, strict=True
    ):
        lowest = np.nanmin(matrix)
        axes.imshow(matrix, cmap="Blues" if lowest >= 0 else "RdBu", vmin=0 if lowest >= 0 else -1, vmax=1)
        for i, j in np.ndindex(matrix.shape):
            axes.text(
                j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=9,
                color="white" if abs(matrix[i, j]) > 0.6 else INK,
            )  # fmt: skip
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=35, ha="right", fontsize=9)
        axes.set_yticks(range(len(names)), [short(name) for name in names], fontsize=9)
        axes.tick_params(length=0, colors=INK)
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=11, color=INK, loc="left")
    return figure
