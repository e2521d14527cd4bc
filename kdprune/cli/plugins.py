"""Plug-ins that say of themselves what they need, as tables."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.table import Table

from kdprune.registry import get, names
from kdprune.scorers.common.apply import declared

WIDTH = 200  # of a table that goes into a file or a pipe


def print_scorers() -> None:
    """What each scorer needs, which way is hard, what it costs and where it is from."""
    table = Table()
    table.add_column("scorer")
    for column in ("record", "hard", "labels", "observation costs", "paper"):
        table.add_column(column, overflow="fold")
    for name in names("scorers"):
        try:
            says = declared(name)
        except ValueError as error:  # of another package: the others are still to be seen
            table.add_row(name, "-", "-", "-", str(error), "-")
            continue
        record = f"{says.needs} + scores" if "difficulty" in says.reads else says.needs
        labels = "needed" if says.labels else "no"
        table.add_row(_written(name, len(says.reads)), record, says.hard, labels, says.cost, says.paper)
    Console(width=None if Console().is_terminal else WIDTH).print(table)


def _written(name: str, supplied: int) -> str:
    """A scorer with the parameters that a user may write."""
    parameters = list(inspect.signature(get("scorers", name)).parameters)[supplied:]
    return f"{name}({', '.join(parameters)})" if parameters else name
