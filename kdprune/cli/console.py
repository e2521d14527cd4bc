"""Where tables go: a terminal, or a file or pipe, in which lines may be longer."""

from __future__ import annotations

from rich.console import Console


class _Pipe(Console):
    def on_broken_pipe(self) -> None:
        """Let the command say how it ends; rich would exit with 1, as if something had failed."""
        raise


def console(width: int = 160) -> Console:
    """The console of stdout.

    Args:
        width: characters of a line where stdout is no terminal, whose own width is taken.
    """
    return _Pipe(width=None if Console().is_terminal else width)
