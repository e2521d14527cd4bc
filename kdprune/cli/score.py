"""`kdprune score`: score files of a record, and a table of what is in them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kdprune.data.scores import Scores, load_scores
from kdprune.pipeline.score import score_files
from kdprune.runs.workers import launched
from kdprune.scorers.common.apply import bound, declared

log = logging.getLogger("kdprune")


def print_scores(scorers: list[str], records: list[Path], options: Any) -> None:
    """Score, and print the quartiles and the path of each score file.

    Args:
        scorers: names, or names with arguments.
        records: folders of one record.
        options: `scores`, `seed`, `output`, `workers`, `launcher` and `ray_address`.
    """
    workers = launched(options.launcher, options.workers, options.ray_address)
    if options.launcher != "local" or options.workers is not None:
        _warn_of_undivided(scorers, "--workers" if options.launcher == "local" else "--launcher")
    base = None if options.scores is None else load_scores(options.scores)
    with workers as mapper:
        paths = score_files(scorers, records, Path(options.output), seed=options.seed, base=base, mapper=mapper)
    table = Table(title=f"scores of {', '.join(map(str, records))}")
    table.add_column("scorer")
    for column in ("hard is", "samples", "lowest", "quarter", "median", "three quarters", "highest"):
        table.add_column(column, justify="right")
    for path in paths:
        _row(table, load_scores(path))
    Console(width=None if Console().is_terminal else 160).print(table)
    print(*paths, sep="\n")  # below the table, in its order, where no column cuts them


def _warn_of_undivided(scorers: list[str], option: str) -> None:
    for text in scorers:
        if "mapper" not in declared(bound(text, "scorer")[0].name).reads:
            log.warning("%s: no effect on %s, which is computed in this process", option, text)


def _row(table: Table, scores: Scores) -> None:
    observed = scores.values[~np.isnan(scores.values)]
    finite = observed[np.isfinite(observed)]
    quartiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]) if len(finite) else [np.nan] * 5
    if len(observed) > len(finite):  # samples that were never learned, say
        quartiles[-1] = observed.max()
    table.add_row(scores.scorer, scores.hard, f"{len(observed):,}", *(f"{q:.4g}" for q in quartiles))
