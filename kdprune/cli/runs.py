"""`kdprune runs`: find, compare and repeat runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table
from rich.text import Text

from kdprune.cli.console import console
from kdprune.cli.unused import warn_of_unused
from kdprune.config.conditions import Condition, only

log = logging.getLogger("kdprune")

_OF_LISTS: tuple[Condition, ...] = (
    only(lambda o: o.command is None, "--command prints one"),
    only(lambda o: o.compare is None, "--compare says in what two differ"),
)
UNUSED: dict[str, tuple[Condition, ...]] = {
    **dict.fromkeys(("where", "sort", "reverse", "columns", "json"), _OF_LISTS),
    "compare": _OF_LISTS[:1],
}

WIDTH = 120  # where the output is no terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folders", type=str, nargs="*", help="Folders of run directories (default: runs).")
    parser.add_argument(
        "--where", type=str,
        help="Only runs for which this holds: \"keep_fraction<0.5 and student.name=='resnet18'\", by the names of "
        "settings and of summary.json; the end of a name will do. seed in [0, 1], not …, or.",
    )  # fmt: skip
    parser.add_argument("--sort", type=str, help="By this name, the highest first (default: by path).")
    parser.add_argument("--reverse", action="store_true", help="The other way round.")
    parser.add_argument("--columns", type=str, nargs="+", default=[], help="Names to show as well.")
    parser.add_argument("--compare", type=str, nargs=2, help="Say in what two runs differ, instead of a list.")
    parser.add_argument("--command", type=str, help="Print the command that repeats this run, instead of a list.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object a run, with all names.")


def print_runs(options: Namespace) -> None:
    """Print the runs that are asked for, or two compared, or a command.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown name; no such condition.
    """
    from kdprune.report.compare import command_of

    warn_of_unused(options, UNUSED)
    if options.command is not None:
        print(command_of(Path(options.command)))
    elif options.compare is not None:
        _print_comparison(*(Path(path) for path in options.compare))
    else:
        _print_list(options)


def _print_list(options: Namespace) -> None:
    from kdprune.report.runs import find_runs, full_name
    from kdprune.report.where import Where

    folders = [Path(folder) for folder in options.folders or ["runs"]]
    runs = find_runs(folders)
    where = Where(options.where, lambda name: full_name(name, runs)) if options.where else None
    sort = full_name(options.sort, runs) if options.sort else None
    columns = [full_name(name, runs) for name in options.columns]
    shown = [run for run in runs if where is None or where(run.values)]
    if sort is not None:
        shown = _sorted(shown, sort)
    if options.reverse:
        shown.reverse()
    if options.json:
        for run in shown:
            print(json.dumps(run.values))
        return
    if not shown:
        print(f"no runs in {', '.join(map(str, folders))}" + (f" where {options.where}" if where else ""))
        return
    _print_table(shown, [*columns, *([sort] if sort else [])], len(runs))


def _sorted(runs: Sequence[Any], name: str) -> list[Any]:
    """Highest first; texts in their order; what has no value last."""
    some = [run for run in runs if run.values.get(name) is not None]
    numbers = [run for run in some if isinstance(run.values[name], int | float)]
    texts = [run for run in some if not isinstance(run.values[name], int | float)]
    none = [run for run in runs if run.values.get(name) is None]
    highest = sorted(numbers, key=lambda run: run.values[name], reverse=True)
    return [*highest, *sorted(texts, key=lambda run: str(run.values[name])), *none]


def _print_table(runs: Sequence[Any], asked: Sequence[str], total: int) -> None:
    from kdprune.report.compare import differing

    out = console(WIDTH)
    columns = {"run": [Text(run.path.name) for run in runs], "state": [_state(run.values) for run in runs]}
    differ = [name for name in differing(runs) if name not in asked]
    left_out = []
    for name in dict.fromkeys(["test_top1", *asked, *differ]):
        cells = [_cell(name, run.values.get(name)) for run in runs]
        if name in differ and _width({**columns, name: cells}) > out.width:
            left_out.append(name)
        else:
            columns[name] = cells
    some = f"{len(runs):,} of {total:,} runs" if len(runs) < total else f"{total:,} run{'s' * (total > 1)}"
    more = f"they differ in {', '.join(left_out)}, too (--columns)" if left_out else None
    table = Table(title=some, caption=more)
    for name in columns:
        table.add_column(_title(name), justify="left" if name in ("run", "state") else "right", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    out.print(table)


def _width(columns: dict[str, list[Text]]) -> int:
    """Of a table, in characters."""
    return 1 + sum(3 + max(len(_title(name)), *map(len, cells)) for name, cells in columns.items())


def _title(name: str) -> str:
    """The last part of a name, which says most; with the group where that alone says nothing."""
    return name if name.endswith((".model", ".models", ".name", ".seconds")) else name.rpartition(".")[2]


def _state(values: dict[str, Any]) -> Text:
    reached = f" at epoch {values['epoch']:g}" if values["state"] != "finished" and values["epoch"] else ""
    return Text(values["state"] + reached)


def _print_comparison(first: Path, second: Path) -> None:
    from kdprune.report.compare import differing, differing_inputs
    from kdprune.report.runs import find_runs

    one, other = (next((run for run in find_runs([path]) if run.path == path), None) for path in (first, second))
    if one is None or other is None:
        raise ValueError(f"{first if one is None else second} is not a run directory")
    results = ("test_top1", "test_loss", "kept", "steps", "images_seen", "cost.seconds", "precision", "device")
    table = Table(title="settings and results that differ")
    for title in ("name", first.name, second.name):
        table.add_column(title, overflow="fold")
    for name in [*differing([one, other]), *results]:
        if one.values.get(name) != other.values.get(name):
            table.add_row(name, *(_cell(name, run.values.get(name)) for run in (one, other)))
    out = console(WIDTH)
    if table.row_count:
        out.print(table)
    inputs = differing_inputs(first, second)
    out.print("\n".join(["contents that differ:", *inputs]) if inputs else "equal keys: one run", markup=False)


def _cell(name: str, value: Any) -> Text:
    if value is None or value == []:
        return Text("-")
    if name.endswith("top1") and isinstance(value, float):
        return Text(f"{100 * value:.2f}%")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, list):
        return Text(",".join(map(str, value)))
    return Text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
