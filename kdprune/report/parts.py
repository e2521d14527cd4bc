"""Parts of the page as HTML. Every value that is not ours goes through `text`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from kdprune.pipeline.contact_sheet import KINDS
from kdprune.report.bills import Bill
from kdprune.report.charts import Chart, Missing, colour_of, style_of
from kdprune.report.gallery import Gallery, Strip
from kdprune.report.sections import Section, title_of
from kdprune.report.tables import (
    NUMBERS,
    arm_table,
    cost_words,
    duration_words,
    reading_words,
)

_CSS_STYLES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "double"}
FILTERED = 14  # series above which there is a field to find one


def text(value: object) -> str:
    """A value as HTML shows it letter by letter, in elements and in quoted attributes."""
    return html.escape(str(value), quote=True)


def tiles(section: Section, bill: Bill) -> str:
    """How much there is of everything."""
    finished = sum(len(arm.finished) for arm in section.arms)
    states = {
        state: sum(e.state == state for e in section.entries) for state in ("running", "waiting", "failed", "lost")
    }
    runs = f"{finished:,}" if finished == len(section.entries) else f"{finished:,} of {len(section.entries):,}"
    facts = [(runs, "runs finished"), (f"{len(section.arms):,}", "arms")]
    facts += [(f"{count:,}", state) for state, count in states.items() if count]
    if finished:
        facts.append((duration_words(bill.once.seconds), "of computing, shared parts once"))
        facts.append((duration_words(bill.apart), "if each run were made alone"))
    measured = [e.summary["energy"] for e in section.entries if isinstance(e.summary.get("energy"), dict)]
    if measured:
        facts.append((f"{sum(_number(one.get('kwh')) for one in measured):.3g} kWh", "of the runs' own training"))
        facts.append((f"{sum(_number(one.get('co2_kg')) for one in measured):.3g} kg", "CO₂ of it"))
    return f'<div class="tiles">{"".join(f"<div><b>{text(a)}</b><span>{text(b)}</span></div>" for a, b in facts)}</div>'


def toggles(section: Section, index: int, hidden: Iterable[int]) -> str:
    """A box for each series, and buttons for all of them."""
    off = set(hidden)
    boxes = "".join(
        f'<label><input type="checkbox" value="{series}" data-section="{index}"{"" if series in off else " checked"}>'
        f"{_swatch(series)}<span>{text(label)}</span></label>"
        for series, label in enumerate(section.series)
    )
    names = [("all", "All"), ("none", "None"), *([("first", "Best")] if off else [])]
    buttons = "".join(
        f'<button type="button" data-all="{all}" data-section-all="{index}">{word}</button>' for all, word in names
    )
    find = (
        '<input type="search" placeholder="Find an arm" aria-label="Find an arm">'
        if len(section.series) > FILTERED
        else ""
    )
    return (
        f'<fieldset class="toggles"><legend>Arms on {text(section.title)}</legend><div class="all">{buttons}</div>'
        f"{find}{boxes}</fieldset>"
    )


def arms_card(section: Section, bill: Bill, index: int) -> str:
    """The table of arms, and how to read it."""
    head, *lines = arm_table(section, bill)
    best = section.best
    rows = []
    for place, line in enumerate(lines):
        arm = section.arms[place]
        mean, seconds = arm.mean_and_sd[0], bill.seconds[place]
        difference = section.difference(place)
        keys = [mean, len(arm.top1), None if difference is None else difference.mean, seconds]
        cells = [
            f"<td>{_swatch(arm.series)}{text(line[0])}</td>",
            *(f"<td>{text(cell)}</td>" for cell in line[1:-NUMBERS]),
        ]
        if len(line) == NUMBERS:
            cells = [f"<td>{_swatch(arm.series)}{text(arm.label)}</td>"]
        for column, (cell, key) in enumerate(zip(line[-NUMBERS:], keys, strict=True)):
            marked = " best" if column == 0 and place in best else ""
            cells.append(f'<td class="number{marked}" data-value="{"" if key is None else key}">{text(cell)}</td>')
        rows.append(f'<tr data-of="{index}" data-series="[{arm.series}]">{"".join(cells)}</tr>')
    titles = head if len(head) > NUMBERS else ["arm", *head]
    legend = "".join(f"<span>{_swatch(s)} {text(label)}</span>" for s, label in enumerate(section.series))
    return (
        f'<div class="card table" id="arms-{index}"><h3>Arms</h3>'
        f'<div class="scroll">{_table(titles, rows, NUMBERS)}</div>'
        f'<p class="about">{text(reading_words(section))}</p><p class="about">{text(cost_words(bill))}</p></div>'
        f'<div class="printed">{legend}</div>'
    )


def chart_card(chart: Chart, section: int, figures: Iterable[int]) -> str:
    """A figure's title, how to read it, a place for each panel."""
    places = "".join(f'<div class="plot" data-figure="{figure}" data-section="{section}"></div>' for figure in figures)
    sizes = {1: "wide" if chart.wide else "single", 2: "two", 3: "many"}
    size = sizes.get(len(chart.panels), "many long")
    left = f'<p class="about">Left out: {text(chart.left_out)}.</p>' if chart.left_out else ""
    return (
        f'<div class="card {size}" id="{chart.id}-{section}"><h3>{text(chart.title)}</h3>'
        f'<p class="about">{text(chart.about)}</p><div class="panels">{places}</div>{left}</div>'
    )


def gallery_card(gallery: Gallery, section: int) -> str:
    """Images of a selection: a row for each class, a column for each kind."""
    kinds = [kind for kind in KINDS if any(strip.kind == kind for *_, strips in gallery.rows for strip in strips)]
    rows = []
    for name, kept, strips in gallery.rows:
        by_kind = {strip.kind: strip for strip in strips}
        cells = "".join(f"<td>{_strip(by_kind[kind], name) if kind in by_kind else ''}</td>" for kind in kinds)
        rows.append(f'<tr><th scope="row">{text(name)}<small>{text(kept)}</small></th>{cells}</tr>')
    head = "".join(f'<th scope="col">{kind}<small>{text(KINDS[kind])}</small></th>' for kind in kinds)
    left = f" Shown are {text(gallery.left_out)}." if gallery.left_out else ""
    series = text(json.dumps(list(gallery.series)))
    return (
        f'<div class="card many long" id="gallery-{section}" data-of="{section}" data-series="{series}">'
        f"<h3>Images: {text(gallery.label)}</h3>"
        f'<p class="about">A <span class="kept-key">coloured</span> line stands under what was kept.{left}</p>'
        f'<div class="scroll"><table class="gallery"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}'
        "</tbody></table></div></div>"
    )


def runs_card(section: Section, index: int, first: int) -> str:
    """All runs; the name of each opens its settings."""
    names = list(dict.fromkeys(name for entry in section.entries for name in entry.seeds))
    columns = ["run", "state", "arm", *map(title_of, names), "top-1 %", "loss", "images/s", "training s", "error"]
    rows, number = [], first
    for arm in section.arms:
        for entry in arm.entries:
            cells = []
            if entry.run is None:
                cells.append("<td>-</td>")
            else:
                cells.append(
                    f'<td><button type="button" class="run" data-run="{number}">{text(entry.run.path.name)}</button>'
                    "</td>"
                )
                number += 1
            cells.append(f'<td><span class="state {text(entry.state)}">{text(entry.state)}</span></td>')
            cells.append(f"<td>{_swatch(arm.series)}{text(arm.label)}</td>")
            cells += [f"<td>{text(entry.seeds.get(name, '-'))}</td>" for name in names]
            values = [entry.top1, *(entry.values.get(n) for n in ("test_loss", "images_per_second", "train_seconds"))]
            cells += [_number_cell(value) for value in values]
            cells.append(f'<td class="wrap">{text(entry.error)}</td>')
            rows.append(f'<tr data-of="{index}" data-series="[{arm.series}]">{"".join(cells)}</tr>')
    opened = " open" if len(rows) <= 60 else ""
    return (
        f'<details class="card runs" id="runs-{index}"{opened}><summary>Runs: {len(rows):,}, each with its settings '
        f'and surroundings</summary><div class="scroll">{_table(columns, rows, 5, last_text=True)}</div></details>'
    )


def missing_card(missing: Sequence[Missing]) -> str:
    """Figures that there are not, a line each."""
    if not missing:
        return ""
    lines = "".join(f"<li>{text(one.title)}: {text(one.why)}.</li>" for one in missing)
    return f'<div class="card"><h3>Not shown</h3><ul class="plain">{lines}</ul></div>'


def _table(head: Sequence[str], rows: Sequence[str], numbers: int, last_text: bool = False) -> str:
    """A table whose heads sort it; the last columns hold numbers."""
    titles = []
    for column, title in enumerate(head):
        is_number = column >= len(head) - numbers and not (last_text and column == len(head) - 1)
        kind = ' class="number"' if is_number else ""
        titles.append(f'<th scope="col"{kind}><button type="button">{text(title)}</button></th>')
    return f"<table><thead><tr>{''.join(titles)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _number_cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number" data-value="{value if number else ""}">{f"{value:.4g}" if number else "-"}</td>'


def _strip(strip: Strip, name: str) -> str:
    lines = "".join(f"<i{' class=kept' if kept else ''}></i>" for kept in strip.is_kept)
    told = text(f"{name}, {strip.kind}: {', '.join(strip.names)}")
    return (
        f'<span class="strip" style="--count:{len(strip.is_kept)}"><img src="{strip.picture}" alt="{told}" '
        f'title="{told}">{lines}</span>'
    )


def _swatch(series: int) -> str:
    style = _CSS_STYLES[style_of(series)]
    return f'<span class="swatch" style="border-top-color:{colour_of(series)};border-top-style:{style}"></span>'


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
