"""How all figures look. matplotlib is imported only where something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdprune.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GREY, PAPER = "#0b0b0b", "#6b6a63", "#d4d2ca", "#fcfcfb"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure  # no pyplot: it would keep figures, and choose a window system

    return Figure((width, height), dpi=120, facecolor=PAPER, layout="constrained")


def style(axes: Axes, x: str, y: str) -> None:
    """Label the axes, and take away what is not data."""
    axes.set_facecolor(PAPER)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=FAINT, labelsize=8)


def short(text: str) -> str:
    """A name that fits on an axis."""
    return text if len(text) <= 24 else f"{text[:22]}…"


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG."""
    write_whole(path, lambda file: figure.savefig(file, format="png"))
    return path
