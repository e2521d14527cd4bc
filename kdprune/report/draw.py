"""All figures of a report, and the files that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdprune.report.bills import Bill
from kdprune.report.charts import Charts, Missing
from kdprune.report.figures import accuracy
from kdprune.report.figures.alpha import alpha_by_keep
from kdprune.report.figures.classes import per_class
from kdprune.report.figures.curves import training_curves
from kdprune.report.figures.scores import score_histograms
from kdprune.report.gallery import Galleries, Gallery
from kdprune.report.page import FILE, save_page
from kdprune.report.report import Report, save_tables
from kdprune.report.sections import Section
from kdprune.report.selections import selections_of
from kdprune.report.static import draw_static


@dataclass
class Writer:
    """Writes reports into a folder, again and again where a sweep is followed.

    Args:
        figures: png or svg, for files of the figures; None: there are none.
    """

    folder: Path
    figures: str | None = None
    _galleries: Galleries = field(default_factory=Galleries)

    def write(self, report: Report, watching: bool = False) -> list[Path]:
        """Write tables, page and figures; their paths."""
        charts: list[Charts] = []
        galleries: list[list[Gallery]] = []
        for section, bill in zip(report.sections, report.bills, strict=True):
            drawn, images = self._drawn(section, bill)
            charts.append(drawn)
            galleries.append(images)
        paths = save_tables(report, self.folder)
        paths.append(save_page(report, charts, galleries, self.folder / FILE, watching))
        return [*paths, *self._static(report, charts)]

    def _drawn(self, section: Section, bill: Bill) -> tuple[Charts, list[Gallery]]:
        problems: list[str] = []
        selections = selections_of(section, problems)
        charts = Charts()
        for one in (
            accuracy.against_keep(section),
            accuracy.against_teacher(section),
            alpha_by_keep(section),
            accuracy.against_cost(section, bill),
            score_histograms(selections, problems),
            per_class(section),
            training_curves(section),
            accuracy.energy(section),
        ):
            charts.add(one)
        images, why = self._galleries.of(selections)
        if why:
            charts.add(Missing("Images" if not images else "More images", why))
        return charts, images

    def _static(self, report: Report, charts: Sequence[Charts]) -> list[Path]:
        if self.figures is None:
            return []
        paths = []
        for index, (section, drawn) in enumerate(zip(report.sections, charts, strict=True)):
            several = f"{index + 1}_" if len(report.sections) > 1 else ""
            for chart in drawn.charts:
                path = self.folder / "figures" / f"{several}{chart.id}.{self.figures}"
                paths.append(draw_static(chart, list(section.series), path))
        return paths
