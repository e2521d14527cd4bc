"""Accuracy of each class with and without pruning, as `kdprune analyse classes` measured it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from kdprune.outside import read_bytes
from kdprune.report.charts import Chart, Line, Mark, Missing, Panel, Points
from kdprune.report.sections import Section

FILE = Path("analysis") / "classes.csv"  # in a run directory
NAMED = 40  # classes of a panel
MOST = 8  # panels
LARGEST = 2**24  # bytes

Row = dict[str, float | str]


def per_class(section: Section) -> Chart | Missing:
    """A panel for each arm of which a run was compared with a full one: both accuracies of each class."""
    title = "Accuracy of each class, with and without pruning"
    panels = []
    for arm in section.arms:
        for entry in arm.finished:
            rows = read_classes(entry.run.path / FILE) if entry.run is not None else []
            if rows:
                panels.append(_panel(arm.label, arm.series, rows))
                break
    if not panels:
        return Missing(
            title, "no run was compared with a full one class by class (kdprune analyse classes FULL PRUNED …)"
        )
    left_out = f"{len(panels) - MOST} further arms" if len(panels) > MOST else ""
    about = (
        "Held-out accuracy; filled: the pruned run, hollow: the run on all samples. The class that lost most is on top."
    )
    return Chart("classes", title, about, panels[:MOST], left_out)


def read_classes(path: Path) -> list[Row]:
    """Rows of a classes.csv; empty where there is none, or it is damaged."""
    try:
        rows = list(csv.DictReader(read_bytes(path, LARGEST).decode().splitlines()))
        found: list[Row] = []
        for row in rows:
            numbers = {name: float(row[name]) for name in ("kept_share", "full", "pruned", "difference")}
            if not all(map(math.isfinite, numbers.values())):
                return []
            found.append({"class": row["class"], **numbers})
        return found
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []


def _panel(label: str, series: int, rows: list[Row]) -> Panel:
    shown = rows[:NAMED][::-1]
    names = [str(row["class"]) for row in shown]
    full, pruned = ([100 * float(row[name]) for row in shown] for name in ("full", "pruned"))
    text = [
        f"{row['class']}: {100 * float(row['full']):.1f} % full, {100 * float(row['pruned']):.1f} % pruned "
        f"({100 * float(row['difference']):+.1f}), {100 * float(row['kept_share']):.0f} % kept"
        for row in shown
    ]
    places = list(range(len(names)))
    marks: list[Mark] = [
        *(Line([a, b], [n, n], ["", ""], series, faint=True) for a, b, n in zip(full, pruned, places, strict=True)),
        Points(full, places, text, series, hollow=True),
        Points(pruned, places, text, series),
    ]
    more = "" if len(rows) <= NAMED else f"the {NAMED} worst hit of {len(rows):,}"
    return Panel(label, "accuracy of the class, %", more, marks, names=names)
