"""`kdprune lottery`: iterative magnitude pruning, and the table of its levels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from rich.table import Table

from kdprune.cli.console import console
from kdprune.config import Config
from kdprune.messages import counted

if TYPE_CHECKING:
    from kdprune.pipeline.lottery import Level


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--levels", type=int, default=10, help="How often weights are pruned.")
    parser.add_argument("--rate", type=float, default=0.2, help="Part of the weights left that each level prunes.")
    parser.add_argument(
        "--rewind_to", type=int, default=0,
        help="Step whose weights each level begins with, and at which schedule and order go on; 0: the first weights.",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=1, help="Lotteries, of --seed and the seeds after it.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object a level and seed.")


def lottery(options: Any, config: Config) -> None:
    """Train the levels and print what they came to."""
    from kdprune.pipeline.lottery import Plan
    from kdprune.pipeline.lottery import lottery as levels_of

    plan = Plan(options.levels, options.rate, options.rewind_to, options.repeats)
    levels = list(levels_of(config, plan))
    if os.environ.get("RANK", "0") != "0":
        return
    if options.json:
        for level in levels:
            print(json.dumps(_row(level)))
        return
    print_levels(levels)


def print_levels(levels: Sequence[Level]) -> None:
    """A row a level: density, top-1 as mean ± sd over seeds, and in how many of them."""
    from kdprune.report.statistics import mean_and_sd

    summary = levels[0].result.summary
    seeds = counted(len({level.seed for level in levels}), "seed")
    table = Table(title=f"{summary['dataset']}: {summary['student']['name']}, {seeds}, top-1 at the last epoch")
    for column in ("level", "weights kept %", "top-1 %", "n", "steps"):
        table.add_column(column, justify="right")
    for number in sorted({level.number for level in levels}):
        of_level = [level for level in levels if level.number == number]
        found = [level.result.summary["test_top1"] for level in of_level]
        mean, sd = mean_and_sd([100 * top1 for top1 in found if top1 is not None])
        top1 = "-" if mean is None else f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")
        steps = of_level[0].result.summary["steps"]
        table.add_row(str(number), f"{100 * of_level[0].density:.3g}", top1, str(len(found)), f"{steps:,}")
    console(100).print(table)


def _row(level: Level) -> dict[str, Any]:
    summary = level.result.summary
    named = {name: summary.get(name) for name in ("test_top1", "val_top1", "steps", "train_seconds")}
    return {"level": level.number, "seed": level.seed, "density": level.density, "run": str(level.result.path), **named}
