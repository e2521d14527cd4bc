"""Which settings tell the arms of one figure apart, beside those that the figure itself shows."""

from __future__ import annotations

from collections.abc import Sequence

from kdprune.report.compare import differing
from kdprune.report.sections import KEEP, Arm, Section
from kdprune.sweep.study import is_seed


def apart(arms: Sequence[Arm], section: Section, shown: tuple[str, ...]) -> list[str]:
    """Names of settings in which arms of one keep fraction differ, but for seeds and what was tuned.

    Args:
        shown: beginnings of the names that the figure shows.
    """
    runs = [entry.run for arm in arms for entry in arm.finished if entry.run is not None]
    found = []
    for name in differing(runs) if runs else []:
        if is_seed(name) or name == KEEP or name in section.tuned or name.startswith(shown):
            continue
        by_keep: dict[object, set[str]] = {}
        for run in runs:
            by_keep.setdefault(run.values.get(KEEP), set()).add(repr(run.values.get(name)))
        if any(len(values) > 1 for values in by_keep.values()):
            found.append(name)
    return found
