"""Training curves: held-out accuracy and training loss along the epochs, means over the seeds of an arm."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdprune.outside import read_bytes
from kdprune.report.charts import Chart, Line, Mark, Missing, Panel
from kdprune.report.sections import Arm, Section
from kdprune.report.statistics import mean_and_sd

MOST = 6  # keep fractions
POINTS = 80  # of a line
LARGEST = 2**24  # bytes of a metrics.csv

Curve = dict[float, float]  # epoch → value


def training_curves(section: Section) -> Chart | Missing:
    """A panel for each keep fraction and measure; runs under way are in it, too."""
    title = "Training curves"
    keeps = sorted({arm.keep for arm in section.arms if arm.keep is not None})
    shown = keeps if len(keeps) <= MOST else [keeps[round(i * (len(keeps) - 1) / (MOST - 1))] for i in range(MOST)]
    curves = {i: _curves(arm) for i, arm in enumerate(section.arms) if arm.keep in shown}
    panels = []
    for column, word, factor in (("test_top1", "top-1, %", 100.0), ("train_loss", "training loss", 1.0)):
        for keep in shown:
            lines = [
                _line(section.arms[index], [one[column] for one in of_runs], factor)
                for index, of_runs in curves.items()
                if section.arms[index].keep == keep
            ]
            if marks := [line for line in lines if line is not None]:
                panels.append(Panel(f"keep {keep:g}", "epoch", word, marks))
    if not panels:
        return Missing(title, "no run has a metrics.csv yet")
    left_out = f"{len(keeps) - len(shown)} further keep fractions" if len(keeps) > len(shown) else ""
    return Chart(
        "curves",
        title,
        "Means over the seeds that reached an epoch.",
        panels,
        left_out,
    )


def read_curves(path: Path, columns: Sequence[str]) -> dict[str, Curve]:
    """Columns of a metrics.csv by epoch, finite values only; empty where there is no such file, or it is damaged."""
    found: dict[str, Curve] = {column: {} for column in columns}
    try:
        rows = csv.DictReader(read_bytes(path, LARGEST).decode().splitlines())
        for row in rows:
            for column in columns:
                if row.get(column) and math.isfinite(value := float(row[column])):
                    found[column][float(row["epoch"])] = value
    except (OSError, ValueError, KeyError, csv.Error):
        return {column: {} for column in columns}
    return found


def _curves(arm: Arm) -> list[dict[str, Curve]]:
    paths = [entry.run.path / "metrics.csv" for entry in arm.entries if entry.run is not None]
    return [read_curves(path, ("test_top1", "train_loss")) for path in paths]


def _line(arm: Arm, curves: Sequence[Mapping[float, float]], factor: float) -> Mark | None:
    epochs = sorted({epoch for curve in curves for epoch in curve})
    if not epochs:
        return None
    step = max(1, math.ceil(len(epochs) / POINTS))
    chosen = sorted({*epochs[::step], epochs[-1]})
    means = [mean_and_sd([factor * curve[epoch] for curve in curves if epoch in curve])[0] for epoch in chosen]
    y = [float(f"{mean or 0.0:.4g}") for mean in means]
    return Line(chosen, y, arm.label, arm.series, name=arm.label, markers=len(chosen) == 1)
