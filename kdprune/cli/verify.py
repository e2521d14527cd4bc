"""`kdprune verify`: a table of what was checked, and what is wrong."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from kdprune.cli.console import console
from kdprune.pipeline.verify import verify


def print_verified(folders: list[Path]) -> int:
    """Check and print; the exit status: 0 all is as it was written, 1 something is not."""
    out = console(110)
    table = Table("folder", "holds", "files", "state")
    problems: list[str] = []
    for found in verify(folders):
        state = "damaged" if found.problems else "as written" if found.finished else "unfinished, as written"
        table.add_row(str(found.folder), found.what, f"{found.files:,}", state)
        problems += found.problems
    out.print(table)
    for problem in problems:
        out.print(problem, style="red", highlight=False)
    return 1 if problems else 0
