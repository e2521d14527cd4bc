"""The tables of a report: a row a run (CSV, parquet), a row an arm (Markdown, console)."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from kdprune.config import dotted
from kdprune.files import write_text, write_whole
from kdprune.messages import counted
from kdprune.report.bills import Bill
from kdprune.report.sections import Arm, Section, title_of
from kdprune.report.statistics import LEVEL, Difference

CSV, PARQUET, MARKDOWN = "results.csv", "results.parquet", "results.md"
NUMBERS = 4  # columns of the arms' table after those that say which arm it is
_LAST = ("run", "error")

Row = dict[str, Any]


def rows_of(section: Section, bill: Bill) -> list[Row]:
    """A row for each run: its arm, its coordinates, what came out (all of summary.json), what it costs alone."""
    rows = []
    for index, arm in enumerate(section.arms):
        costs = iter(bill.runs[index])
        for entry in arm.entries:
            place = {("arm_name" if name == "arm" else name): word for name, word in entry.coordinates.items()}
            row: Row = {"arm": arm.label, **place, **entry.seeds, **entry.tuned, "state": entry.state}
            row |= _flat(entry.summary)
            cost = next(costs) if entry.finished else None
            if cost is not None:
                row |= {"alone_seconds": cost.seconds, "alone_passes": cost.passes}
            if cost is not None and entry.trials:
                row["tuning_seconds"] = cost.stages.get("tuning", 0.0)
            path = "" if entry.run is None else str(entry.run.path)
            rows.append({**row, "run": path, "error": entry.error})
    return rows


def save_rows(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write results.csv and results.parquet; their paths."""
    columns = dict.fromkeys(name for row in rows for name in row)
    names = [*(name for name in columns if name not in _LAST), *_LAST]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / CSV, text.getvalue())
    write_whole(folder / PARQUET, lambda file: _write_parquet(rows, names, file))
    return [folder / CSV, folder / PARQUET]


def arm_table(section: Section, bill: Bill) -> list[list[str]]:
    """A row for each arm, in the order of the study; the first row is the head. The last four columns are numbers."""
    tuned = list(section.tuned)
    head = [*map(title_of, [*section.names, *tuned]), "top-1 %", "n", f"Δ to baseline, {LEVEL:.0%} interval", "alone"]
    lines = [head]
    for index, arm in enumerate(section.arms):
        place = [arm.coordinates.get(name, "-") for name in section.names]
        chosen = [_chosen(arm, name) for name in tuned]
        seconds = bill.seconds[index]
        cost = "-" if seconds is None else duration_words(seconds)
        difference = difference_words(section, index)
        lines.append([*place, *chosen, mean_words(*arm.mean_and_sd), count_words(arm), difference, cost])
    return lines


def _chosen(arm: Arm, name: str) -> str:
    """A tuned value, marked where better ones may lie beyond what was tried."""
    mark = {"smallest": " ↓", "largest": " ↑"}.get(arm.ends.get(name, ""), "")
    return arm.tuned.get(name, "-") + mark


def markdown(sections: Sequence[Section], bills: Sequence[Bill], warnings: Sequence[str], notes: Sequence[str]) -> str:
    """results.md: warnings, a table for each data set, how to read it, what it cost."""
    parts = [f"> **Warning.** {_escaped(warning)}" for warning in warnings]
    if len(sections) > 1:
        parts.append(separated_words(sections))
    for section, bill in zip(sections, bills, strict=True):
        table = _markdown_table(arm_table(section, bill), section.best)
        parts += [f"## {_escaped(section.title)}", table, _escaped(reading_words(section)), cost_words(bill)]
    return "\n\n".join([*parts, *map(_escaped, notes)]) + "\n"


def _markdown_table(lines: Sequence[Sequence[str]], best: Collection[int]) -> str:
    """The first row is the head; of the others, the means of the best are bold."""
    head, *rest = [[*map(_escaped, line[:-NUMBERS]), *line[-NUMBERS:]] for line in lines]
    for index in best:
        rest[index][-NUMBERS] = f"**{rest[index][-NUMBERS]}**"
    rule = ["---"] * (len(head) - NUMBERS) + ["---:"] * NUMBERS
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rest])


def separated_words(sections: Sequence[Section]) -> str:
    """That runs on several data sets are compared with their like only."""
    names = ", ".join(f"{section.title} ({counted(len(section.entries), 'run')})" for section in sections)
    return f"The runs are on {len(sections)} data sets, which are kept apart: {names}."


def reading_words(section: Section) -> str:
    """What the columns of the table mean, for this section."""
    words = [
        "Top-1 is of the last epoch on held-out data, mean ± standard deviation over n seeds of the student; bold: the "
        "best mean at each keep fraction."
    ]
    if section.baselines:
        names = list(dict.fromkeys(section.series[section.arms[base].series] for base in section.baselines.values()))
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        words.append(
            f"Δ: mean difference in points to the baseline of the same keep fraction ({shown}), paired by "
            f"seed, with Student's {LEVEL:.0%} interval, not corrected for the number of arms; of one pair there is "
            "no interval."
        )
    if any(arm.ends for arm in section.arms):
        words.append("↓ and ↑: the smallest or largest value that was tried; a wider range may hold a better one.")
    words.append("Alone: seconds of computing that one run of the arm takes from nothing, its teachers, recording, "
                 "cached targets and tuning included; evaluation is not in it.")  # fmt: skip
    return " ".join(words)


def cost_words(bill: Bill) -> str:
    """What all runs cost together, with shared things counted once and not."""
    stages = ", ".join(f"{stage} {duration_words(seconds)}" for stage, seconds in bill.once.stages.items()) or "nothing"
    runs = sum(map(len, bill.runs))
    took = f"took {duration_words(bill.once.seconds)}"
    if runs < 2:
        return f"The one finished run {took} with all that it is made of ({stages})." if runs else "No run is finished."
    return (f"All {runs:,} finished runs {took} with what they share counted once ({stages}); each made alone, they "
            f"would take {duration_words(bill.apart)}.")  # fmt: skip


def mean_words(mean: float | None, sd: float | None) -> str:
    """'94.15 ± 1.51'; without a spread of one seed."""
    if mean is None:
        return "-"
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def count_words(arm: Arm) -> str:
    """How many seeds of the student have a result; of how many runs, if these are more; how many runs have none."""
    there = sum(entry.top1 is not None for entry in arm.entries)
    missing = len(arm.entries) - there
    notes = [f"{there} runs"] if there > len(arm.top1) else []
    notes += [f"{missing} missing"] if missing else []
    return f"{len(arm.top1)}" + (f" ({', '.join(notes)})" if notes else "")


def difference_words(section: Section, index: int) -> str:
    """'+2.22 [-4.00, +8.44]', with what is to be said of its pairs."""
    if index in section.baselines.values() and index not in section.baselines:
        return "baseline"
    difference = section.difference(index)
    if difference is None or not section.arms[index].top1:
        return "-"
    return _difference(difference)


def _difference(difference: Difference) -> str:
    if difference.mean is None:
        return "no common seed"
    text = f"{difference.mean:+.2f}"
    if difference.half_width is not None:
        low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
        text += f" [{low:+.2f}, {high:+.2f}]"
    notes = ["1 pair"] if difference.n == 1 else [f"{difference.n} pairs"] if difference.unpaired else []
    notes += [f"{difference.unpaired} unpaired"] if difference.unpaired else []
    return text + (f" ({', '.join(notes)})" if notes else "")


def duration_words(seconds: float) -> str:
    """Seconds for a person: '41 s', '12 min', '3.5 h'."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def _flat(summary: dict[str, Any]) -> Row:
    """All of a summary by dotted names; lists as JSON, but for those of mappings, whose members are numbered."""
    found: Row = {}
    for name, value in dotted(summary).items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for index, one in enumerate(value):
                found |= {f"{name}.{index}.{inner}": part for inner, part in _flat(one).items()}
        elif isinstance(value, list):
            found[name] = json.dumps(value, ensure_ascii=False)
        elif value != {}:
            found[name] = value
    return {sys.intern(name): value for name, value in found.items()}  # thousands of runs have the same names


def _write_parquet(rows: Sequence[Row], names: Sequence[str], file: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    pq.write_table(pa.table(columns), file)


def _column(values: Sequence[Any]) -> Any:
    """Numbers as such where all are; else texts."""
    import pyarrow as pa

    some = [value for value in values if value is not None]
    kinds = {type(value) for value in some}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(abs(value) < 2**63 for value in some):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _escaped(text: str) -> str:
    """What a name may hold is no Markdown and no HTML."""
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), ("\n", " ")):
        text = text.replace(mark, written)
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", text)
