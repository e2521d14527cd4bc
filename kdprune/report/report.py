"""A report as a whole: what it is of, its sections, what they cost. Gathered once, then written in several forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdprune.files import write_text
from kdprune.report.bills import Bill, bill_of
from kdprune.report.confounding import confounded
from kdprune.report.entries import Gathered, Words
from kdprune.report.gather import gather
from kdprune.report.sections import Section, sections_of
from kdprune.report.tables import MARKDOWN, Row, markdown, rows_of, save_rows


@dataclass(frozen=True)
class Report:
    """What is to be shown.

    Attributes:
        bills: of the sections.
        warnings: of what a reader may take the numbers for.
        notes: what was left out, and the like.
    """

    gathered: Gathered
    sections: Sequence[Section]
    bills: Sequence[Bill]
    warnings: Sequence[str]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The names of the studies, or of the data sets."""
        return ", ".join(study.name for study in self.gathered.studies) or ", ".join(s.title for s in self.sections)

    @property
    def running(self) -> bool:
        """Whether anything of it is under way."""
        return any(study.running for study in self.gathered.studies) or any(
            entry.state == "running" for entry in self.gathered.entries
        )


def make_report(sources: Sequence[Path], baseline: Words | None = None) -> Report:
    """Read sweeps and runs; see `gather` and `sections_of`."""
    gathered = gather(sources)
    sections = sections_of(gathered, baseline)
    warnings = list(gathered.warnings)
    for section in sections:
        warning = None if warnings else confounded(section)
        warnings += [] if warning is None else [warning]
    return Report(gathered, sections, [bill_of(section) for section in sections], warnings, gathered.notes)


def save_tables(report: Report, folder: Path) -> list[Path]:
    """Write results.csv, results.parquet and results.md; their paths."""
    rows: list[Row] = []
    for section, bill in zip(report.sections, report.bills, strict=True):
        rows += rows_of(section, bill)
    paths = save_rows(rows, folder)
    write_text(folder / MARKDOWN, markdown(report.sections, report.bills, report.warnings, report.notes))
    return [*paths, folder / MARKDOWN]
