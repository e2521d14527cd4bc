"""Following what runs: the report is written again whenever files changed, until nothing of it is under way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kdprune.report.draw import Writer
from kdprune.report.report import Report
from kdprune.report.runs import is_locked
from kdprune.report.study import FILE, LOGS, is_led, is_sweep
from kdprune.runs.reading import SUMMARY
from kdprune.sweep.journal import FILE as JOURNAL

log = logging.getLogger("kdprune")

LOOK_EVERY = 2.0  # seconds
_OF_RUN = ("config.yaml", "metrics.csv", SUMMARY)


def follow(
    sources: Sequence[Path],
    make: Callable[[], Report],
    writer: Writer,
    tell: Callable[[list[Path]], None],
    every: float = LOOK_EVERY,
) -> None:
    """Write a report now and after each change. Ctrl-C ends it; the page is then written once more, as it stays.

    Args:
        tell: is given the paths once, when there is something to look at.
        every: seconds between two looks.

    Raises:
        FileNotFoundError, ValueError: see `gather`; a sweep that has no run yet is waited for.
    """
    seen: object = None
    report: Report | None = None
    try:
        while True:
            running = _led(sources) or _locked(report)  # before the files, so that what ended meanwhile is still read
            stamp = _stamp(sources)
            if stamp != seen:
                seen, first = stamp, report is None
                report = make()
                running = running or report.running
                paths = writer.write(report, watching=running)
                if first:
                    tell(paths)
            if not running:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        log.info("not followed any further")
    writer.write(make())


def _led(sources: Iterable[Path]) -> bool:
    return any(is_led(source) for source in sources if is_sweep(source))


def _locked(report: Report | None) -> bool:
    """Whether a run that was under way still is."""
    entries = [] if report is None else report.gathered.entries
    return any(entry.state == "running" and entry.run is not None and is_locked(entry.run.path) for entry in entries)


def _stamp(sources: Iterable[Path]) -> object:
    """Equal as long as no file has changed that a report reads: sizes and times, without opening any."""
    found: list[tuple[str, int, int]] = []
    for source in sources:
        if is_sweep(source):
            files: Iterable[Path] = [source / FILE, source / JOURNAL, *(source / LOGS).glob("*")]
        else:
            files = [path for name in _OF_RUN for path in source.rglob(name)]
        for file in files:
            try:
                about = file.stat()
            except OSError:  # it went while we looked
                continue
            found.append((str(file), about.st_size, about.st_mtime_ns))
    return found
