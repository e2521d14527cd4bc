"""A sweep under way: a table that is drawn anew, or where nobody looks at a terminal, a line for each change."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdprune.messages import counted

if TYPE_CHECKING:
    from kdprune.sweep.conduct import Status, Sweep

log = logging.getLogger("kdprune")


class View:
    """Shows a sweep on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._sweep: Sweep | None = None

    @contextlib.contextmanager
    def of(self, sweep: Sweep) -> Iterator[None]:
        """Show a sweep until it ends."""
        self._sweep = sweep
        parts = [status for status in sweep.status.values() if status.node.need is not None]
        shared = f", {counted(len(parts), 'shared part')} of them" if parts else ""
        log.info("%s%s", counted(len(sweep.status) - len(parts), "run"), shared)
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield

    def show(self, status: Status | None) -> None:
        """Show a change of a state; with None, how far everything is."""
        assert self._sweep is not None
        if self._live is not None:
            self._live.update(drawn(self._sweep), refresh=True)
        elif status is not None:
            log.info("%s", line(self._sweep, status))


def line(sweep: Sweep, status: Status) -> str:
    """A change in a line of a log."""
    parts = [f"[{_ended(sweep)}/{len(sweep.status)}]", f"{status.state}:", status.node.what]
    if status.state == "finished":
        parts.append(f"({' '.join([*_top1(status), clock(status.seconds)])})")
    if "error" in status.details and status.state != "running":
        parts.append(f"({status.details['error']})")
    return " ".join(parts)


def drawn(sweep: Sweep) -> Group:
    """What is under way and what has failed, and how much there is."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "state", "epoch", "top-1 %", "left"):
        table.add_column(name, justify="right" if name in ("epoch", "top-1 %", "left") else "left")
    for status in sweep.status.values():
        if status.state in ("running", "failed"):
            details = status.details
            epoch = f"{details['epoch']}/{details['epochs']}" if "epoch" in details else ""
            table.add_row(status.node.what, status.state, epoch, " ".join(_top1(status)), _left(status))
    waiting = sum(status.state == "waiting" for status in sweep.status.values())
    return Group(table, Text(f"{_ended(sweep)} of {len(sweep.status)} ended, {waiting} wait"))


def _ended(sweep: Sweep) -> int:
    return sum(status.ended for status in sweep.status.values())


def _top1(status: Status) -> list[str]:
    """Of the last epoch that was evaluated."""
    found = [status.details[name] for name in ("test_top1", "val_top1") if name in status.details]
    return [f"{100 * found[0]:.2f}"] if found else []


def _left(status: Status) -> str:
    details = status.details
    if status.state != "running" or "epoch" not in details:
        return ""
    return clock((time.monotonic() - status.begun) * (details["epochs"] / details["epoch"] - 1))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
