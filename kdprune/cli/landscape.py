"""`kdprune analyse line`, `instability` and `prunable`: a table or a JSON object, a CSV file and a PNG."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from kdprune.analysis.connectivity import line_between, read_end
from kdprune.analysis.instability import instabilities
from kdprune.analysis.prunable import prunable_fraction
from kdprune.cli import plots
from kdprune.cli.console import console
from kdprune.cli.rows import file_name, folder_of, print_rows, save_rows, say_paths

STABLE = 0.02
"""The barrier below which Frankle et al. 2020 call a network stable."""

Row = dict[str, Any]


def analyse_line(options: Any) -> None:
    """The error from one run's student to another's."""
    names = Path(options.one).name, Path(options.other).name
    folder = folder_of(options.output, read_end(options.one).run)
    line, statistics = line_between(options.one, options.other, options.points, options.statistics)
    columns = zip(line.alphas_A.tolist(), line.errors_A.tolist(), line.losses_A.tolist(), strict=True)
    rows = [{"alpha": alpha, "error": error, "loss": loss} for alpha, error, loss in columns]
    stem = f"line_{file_name(names[0])}_{file_name(names[1])}"
    summary: Row = {"barrier": line.barrier, "error": line.error, "highest": line.highest, "samples": line.samples}
    _show(
        options.json,
        (f"from {names[0]} (α = 0) to {names[1]} (α = 1)", rows),
        {"runs": [options.one, options.other], "statistics": statistics, **summary, "line": rows},
        f"{line.samples:,} held-out samples, {statistics}; barrier {_percent(line.barrier)}: largest error "
        f"{_percent(line.highest)} less the mean of the ends, {_percent(line.error)}",
        lambda: [
            save_rows(folder / f"{stem}.csv", rows),
            plots.draw_line(line.alphas_A.tolist(), line.errors_A.tolist(), names, folder / f"{stem}.png"),
        ],
    )


def analyse_instability(options: Any) -> None:
    """The barrier between children, by the step at which they part."""
    run = Path(options.run)
    folder = folder_of(options.output, run)
    rows, statistics = instabilities(run, options.spawn, options.points, options.statistics, options.output)
    stable = next((row["step"] for i, row in enumerate(rows) if all(r["barrier"] < STABLE for r in rows[i:])), None)
    ending = f"the last barrier is not below {_percent(STABLE)}"
    if stable is not None:
        ending = f"barriers stay below {_percent(STABLE)} from step {stable:,} on"
    _show(
        options.json,
        (f"instability of {run.name}", rows),
        {"run": options.run, "statistics": statistics, "stable_from": stable, "rows": rows},
        f"{statistics}; {ending}",
        lambda: [
            save_rows(folder / "instability.csv", rows),
            plots.draw_barrier(rows, "step", "step at which the children part", STABLE, folder / "instability.png"),
        ],
    )


def analyse_prunable(options: Any) -> None:
    """The largest part of a run's weights that can be pruned at once without a barrier."""
    run = Path(options.run)
    folder = folder_of(options.output, run)
    (low, high), rows, statistics = prunable_fraction(
        run, options.rewind_to, options.tolerance, options.probes,
        points=options.points, statistics=options.statistics, output=options.output,
    )  # fmt: skip
    shown = [{**row, "run": Path(row["run"]).name} for row in rows]
    _show(
        options.json,
        (f"weights of {run.name} that can be pruned at once", shown),
        {"run": options.run, "statistics": statistics, "tolerance": options.tolerance, "without_barrier": low,
         "with_barrier": high, "rows": rows},
        f"{statistics}; without a barrier: up to {low:.4g} of the weights; with one: from {high:.4g} on",
        lambda: [
            save_rows(folder / "prunable.csv", rows),
            plots.draw_barrier(rows, "fraction", "pruned at once, of the weights that are left", options.tolerance,
                               folder / "prunable.png"),
        ],
    )  # fmt: skip


def _show(
    as_json: bool, table: tuple[str, Sequence[Row]], content: Row, said: str, files: Callable[[], list[Path]]
) -> None:
    """Print and write what was found, on the main process.

    Args:
        table: title and rows.
        content: of the JSON object.
        said: below the table.
        files: writes them.
    """
    if not PartialState().is_main_process:
        return
    paths = files()
    if as_json:
        print(json.dumps(content))
        return
    title, rows = table
    print_rows(rows, title)
    console().print(said)
    say_paths(paths)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
