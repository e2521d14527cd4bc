"""The page: one HTML file that needs no network, with all figures, tables, images and runs of a report.

What comes from data or file names is escaped by `text` where it is HTML, by `json_text` where it is data for the
scripts, and by `interactive.said` where plotly reads it. A policy in the page's head lets no other script run and
nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from kdprune.files import write_whole
from kdprune.report.charts import Chart, Charts
from kdprune.report.details import details_of
from kdprune.report.gallery import Gallery
from kdprune.report.interactive import plotly_figures
from kdprune.report.parts import arms_card, chart_card, gallery_card, missing_card, runs_card, text, tiles, toggles
from kdprune.report.report import Report
from kdprune.report.tables import separated_words

FILE = "report.html"
REFRESH = 10  # seconds, of a page that follows a sweep
SHOWN = 12  # series that are shown at first
_ASSETS = Path(__file__).parent / "assets"


def save_page(
    report: Report, charts: Sequence[Charts], galleries: Sequence[Sequence[Gallery]], path: Path, watching: bool = False
) -> Path:
    """Write the page.

    Args:
        charts, galleries: of the sections.
        watching: whether the page is loaded again by itself.
    """
    pieces = page(report, charts, galleries, watching)
    write_whole(path, lambda file: [file.write(piece.encode()) for piece in pieces])  # no copy of the whole in memory
    return path


def page(
    report: Report, charts: Sequence[Charts], galleries: Sequence[Sequence[Gallery]], watching: bool = False
) -> list[str]:
    """The page as texts one after the other."""
    figures: list[dict[str, Any]] = []
    parts = []
    if len(report.sections) > 1:
        parts.append(f'<p class="warning">{text(separated_words(report.sections))}</p>')
    parts += [f'<p class="warning"><b>Read with care.</b> {text(warning)}</p>' for warning in report.warnings]
    details = details_of(report.sections)
    first_run = 0
    for index, section in enumerate(report.sections):
        cards = [_chart(chart, index, figures) for chart in charts[index].charts]
        body = [
            tiles(section, report.bills[index]),
            arms_card(section, report.bills[index], index),
            f'<div class="charts">{"".join(cards)}</div>',
            *(gallery_card(gallery, index) for gallery in galleries[index]),
            runs_card(section, index, first_run),
            missing_card(charts[index].missing),
        ]
        first_run += len([entry for entry in section.entries if entry.run is not None])
        parts.append(f'<section class="data" id="data-{index}"><h2>{text(section.title)}</h2>{"".join(body)}</section>')
    data = {
        "id": hashlib.sha256(report.title.encode()).hexdigest()[:12],
        "sections": [{"series": list(s.series), "off": hidden(s)} for s in report.sections],
        "figures": figures,
        "watching": watching,
        **details,
    }
    scripts = {"plotly": _plotly(), "js": (_ASSETS / "page.js").read_text()}
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">\n' if watching else ""
    filled = {
        "title": text(report.title), "css": (_ASSETS / "page.css").read_text(), "refresh": refresh,
        "when": f"{time.strftime('%Y-%m-%d %H:%M')}{' · following' if watching else ''}",
        "nav": _nav(report, charts, galleries), "body": "".join(parts), "data": json_text(data),
        "toggles": "".join(toggles(section, i, hidden(section)) for i, section in enumerate(report.sections)),
        "footer": _footer(report), "hashes": " ".join(map(_hash, scripts.values())), **scripts,
    }  # fmt: skip
    template = re.split(r"\{\{(\w+)\}\}", (_ASSETS / "page.html").read_text())
    return [filled[piece] if place % 2 else piece for place, piece in enumerate(template)]


def json_text(content: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or begin a comment."""
    written = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def hidden(section: Any) -> list[int]:
    """Series that are not shown at first: all but the best dozen and those that others are compared with."""
    if len(section.series) <= SHOWN:
        return []
    best: dict[int, float] = {}
    for arm in section.arms:
        rivals = [other.mean_and_sd[0] or 0.0 for other in section.arms if other.keep == arm.keep]
        behind = max(rivals) - (arm.mean_and_sd[0] or 0.0)
        best[arm.series] = min(behind, best.get(arm.series, behind))
    first = [section.arms[base].series for base in section.baselines.values()]
    shown = set(list(dict.fromkeys([*first, *sorted(best, key=lambda series: best[series])]))[:SHOWN])
    return [series for series in range(len(section.series)) if series not in shown]


def _chart(chart: Chart, section: int, figures: list[dict[str, Any]]) -> str:
    """The card of a figure, whose panels are added to the page's."""
    first = len(figures)
    figures += plotly_figures(chart)
    return chart_card(chart, section, range(first, len(figures)))


def _nav(report: Report, charts: Sequence[Charts], galleries: Sequence[Sequence[Gallery]]) -> str:
    links = []
    for index, section in enumerate(report.sections):
        links.append(f'<a class="data" href="#data-{index}">{text(section.title)}</a>')
        places = [("arms", "Arms"), *((chart.id, chart.title) for chart in charts[index].charts)]
        places += [("gallery", "Images")] if galleries[index] else []
        links += [f'<a href="#{id}-{index}">{text(title)}</a>' for id, title in [*places, ("runs", "Runs")]]
    return "".join(links)


def _footer(report: Report) -> str:
    notes = "".join(f"<li>{text(note)}</li>" for note in report.notes)
    return (f'<ul class="plain">{notes}</ul>' if notes else "") + "<p>Written by kdprune.</p>"


def _plotly() -> str:
    """plotly.js out of its package, none of whose modules is needed."""
    script = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    return script.replace("</script", "<\\/script")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
