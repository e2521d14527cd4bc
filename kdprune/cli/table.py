"""The table at the end of a training."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from kdprune.cli.console import console
from kdprune.messages import counted


def print_table(summaries: list[dict[str, Any]]) -> None:
    """Teachers, then the students of all arms, best read from top to bottom.

    Args:
        summaries: of the arms; the first one's teachers are shown.
    """
    first = summaries[0]
    table = Table(
        title=f"{first['dataset']}: {first['kept']:,} of {counted(first['total'], 'sample')} kept, seed {first['seed']}"
    )
    table.add_column("model")
    for column in ("top-1 %", "parameters", "images/s", "seconds", "steps"):
        table.add_column(column, justify="right")
    for teacher in first["teacher"]:
        trained = teacher.get("training") or {}
        _row(table, f"teacher {teacher['name']}", {**trained, **teacher})
    for summary in summaries:
        student = summary["student"]
        kd = f" with KD (α = {summary['alpha']:.3g})" if summary["teacher"] else " without KD"
        _row(table, f"student {student['name']}{kd}", {**summary, "parameters": student["parameters"]})
    console(110).print(table)


def _row(table: Table, name: str, values: dict[str, Any]) -> None:
    top1, seconds, rate = (values.get(k) for k in ("test_top1", "train_seconds", "images_per_second"))
    table.add_row(
        name,
        "-" if top1 is None else f"{100 * top1:.2f}",
        f"{values['parameters']:,}",
        "-" if rate is None else f"{rate:,.0f}",
        "-" if seconds is None else f"{seconds:.1f}",
        "-" if values.get("steps") is None else f"{values['steps']:,}",
    )
