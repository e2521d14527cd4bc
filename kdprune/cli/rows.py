"""Rows of an analysis: as a table on the console, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from kdprune.cli.console import console
from kdprune.files import check_writable, write_text


def folder_of(output: str | Path | None, run: Path) -> Path:
    """Where an analysis of a run writes: as given, or in the run's directory.

    Raises:
        ValueError: nothing can be written there.
    """
    folder = Path(output) if output else run / "analysis"
    if output or run.is_dir():  # that there is no such run is for others to say
        check_writable(folder, "--output")
    return folder


def print_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A table with the columns of the first row."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console().print(table)


def save_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> Path:
    """Write rows as CSV.

    Args:
        columns: where there is no row.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return path


def pivoted(rows: Sequence[Mapping[str, Any]], index: str, column: str, value: str) -> list[dict[str, Any]]:
    """One row for each value of `index`, with a column for each value of `column`."""
    table: dict[Any, dict[str, Any]] = {}
    for row in rows:
        table.setdefault(row[index], {index: row[index], "score": row["score"]})[row[column]] = row[value]
    return list(table.values())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def say_paths(paths: Sequence[Path]) -> None:
    """Print which files were written."""
    print(*paths, sep="\n")


def file_name(name: str) -> str:
    """A name with nothing in it that a file's name cannot have."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name).strip("_")
