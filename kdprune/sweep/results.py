"""What a sweep came to: a row for each run, and a table of its arms. Pure, but for reading summaries."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdprune.files import write_text
from kdprune.runs.run_dir import read_summary
from kdprune.sweep.conduct import Sweep
from kdprune.sweep.study import value_words

CSV, MARKDOWN = "results.csv", "results.md"
_OF_SUMMARY = (
    "test_top1", "test_loss", "val_top1", "keep_fraction", "kept", "alpha", "epochs", "steps", "images_seen",
    "train_seconds",
)  # fmt: skip

Row = dict[str, Any]


def collect(sweep: Sweep) -> list[Row]:
    """A row for each run of the study: coordinates, tuned settings, state, what came out, what it cost."""
    rows = []
    for id, run in sweep.plan.finals:
        status, path, choice = sweep.status[id], sweep.path(id), sweep.choices.get(id)
        tuned = dict.fromkeys(sweep.plan.study.tuned) if choice is None else choice.values
        row: Row = {name: value_words(value) for name, value in run.coordinates.items()}
        row |= {name: value_words(value) for name, value in tuned.items()}
        row["state"] = status.state
        if path is not None:
            summary = read_summary(path)
            row |= {name: summary.get(name) for name in _OF_SUMMARY}
            row |= {f"{stage}_seconds": cost["seconds"] for stage, cost in summary["cost"].items()}
        if choice is not None:
            row["tuning_seconds"] = sum(one["train_seconds"] for one in choice.curve)
        rows.append({**row, "run": "" if path is None else str(path), "error": status.details.get("error", "")})
    return rows


def save(sweep: Sweep, rows: Sequence[Row]) -> list[Path]:
    """Write results.csv and results.md; their paths."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: name in ("run", "error"))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(sweep.folder / CSV, text.getvalue())
    write_text(sweep.folder / MARKDOWN, markdown(table(sweep, rows)))
    return [sweep.folder / CSV, sweep.folder / MARKDOWN]


def table(sweep: Sweep, rows: Sequence[Row]) -> list[list[str]]:
    """Arms with their top-1 (%) at the last epoch, mean ± sd over seeds, and how many; the first row is the head."""
    arms = sweep.plan.arms
    names = list(dict.fromkeys(name for arm in arms for name in arm.coordinates))
    tuned = list(sweep.plan.study.tuned)
    head = [*names, *tuned, "top-1 %", "n"]
    lines, begin = [head], 0
    for arm in arms:
        of_arm = rows[begin : begin + len(arm.runs)]
        begin += len(arm.runs)
        top1 = [100 * row["test_top1"] for row in of_arm if row.get("test_top1") is not None]
        cells = [value_words(arm.coordinates[name]) for name in names]
        cells += ["/".join(dict.fromkeys(str(row[name]) for row in of_arm)) for name in tuned]
        lines.append([*cells, mean_and_sd(top1), f"{len(top1)}" + _missing(len(of_arm) - len(top1))])
    return lines


def mean_and_sd(values: Sequence[float]) -> str:
    """The mean, and the standard deviation of a sample where there are two or more."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the last two columns are numbers."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---"] * (len(lines[0]) - 2) + ["---:"] * 2
    return "".join(f"| {' | '.join(line)} |\n" for line in [escaped[0], rule, *escaped[1:]])


def _missing(count: int) -> str:
    return f" ({count} missing)" if count else ""
