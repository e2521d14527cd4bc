"""`kdprune score`: score files of a record, and a table of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from kdprune.checks import check_seed
from kdprune.cli.console import console
from kdprune.cli.unused import warn_of_unused
from kdprune.config.conditions import Condition, only
from kdprune.data.scores import Scores, load_scores
from kdprune.files import check_writable
from kdprune.pipeline.score import score_files
from kdprune.runs.workers import launched
from kdprune.scorers.common.apply import bound, declared


def print_scores(scorers: list[str], records: list[Path], options: Any) -> None:
    """Score, and print the quartiles and the path of each score file.

    Args:
        scorers: names, or names with arguments.
        records: folders of one record.
        options: `scores`, `seed`, `output`, `workers`, `launcher` and `ray_address`.
    """
    if Path(options.output).suffix in (".parquet", ".csv", ".json"):
        raise ValueError(
            f"--output: {options.output} given, which looks like a file; it is a folder, one for each score file in "
            "it, named by its scorer and what it was made of"
        )
    check_writable(options.output, "--output")
    workers = launched(options.launcher, options.workers, options.ray_address)
    check_seed(options.seed, "--seed")
    warn_of_unused(options, conditions(scorers))
    base = None if options.scores is None else load_scores(options.scores)
    with workers as mapper:
        paths = score_files(scorers, records, Path(options.output), seed=options.seed, base=base, mapper=mapper)
    table = Table(title=f"scores of {', '.join(map(str, records))}")
    table.add_column("scorer")
    for column in ("hard is", "samples", "lowest", "quarter", "median", "three quarters", "highest"):
        table.add_column(column, justify="right")
    for path in paths:
        _row(table, load_scores(path))
    console().print(table)
    print(*paths, sep="\n")  # below the table, in its order, where no column cuts them


def conditions(scorers: list[str]) -> dict[str, tuple[Condition, ...]]:
    """Under which options matter, by what the scorers read."""
    reads = {text: declared(bound(text, "scorer")[0].name).reads for text in scorers}
    undivided = [text for text, read in reads.items() if "mapper" not in read]
    divided = only(lambda options: not undivided, f"computed in this process: {', '.join(undivided)}")
    read = {name for of_one in reads.values() for name in of_one}
    return {
        "workers": (divided,),
        "launcher": (divided,),
        "seed": (only(lambda options: "seed" in read, "no scorer here draws"),),
        "scores": (only(lambda options: "difficulty" in read, "no scorer here starts from other scores"),),
    }


def _row(table: Table, scores: Scores) -> None:
    observed = scores.values[~np.isnan(scores.values)]
    finite = observed[np.isfinite(observed)]
    quartiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]) if len(finite) else [np.nan] * 5
    if len(observed) > len(finite):  # samples that were never learned, say
        quartiles[-1] = observed.max()
    table.add_row(scores.scorer, scores.hard, f"{len(observed):,}", *(f"{q:.4g}" for q in quartiles))
