"""`kdprune score`: score files of a record, and a table of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kdprune.data.scores import Scores, load_scores
from kdprune.pipeline.score import score_files


def print_scores(scorers: list[str], records: list[Path], options: Any) -> None:
    """Score, and print the path and the quartiles of each score file.

    Args:
        scorers: names, or names with arguments.
        records: folders of one record.
        options: `scores`, `seed` and `output`.
    """
    base = None if options.scores is None else load_scores(options.scores)
    paths = score_files(scorers, records, Path(options.output), seed=options.seed, base=base)
    table = Table(title=f"scores of {', '.join(map(str, records))}")
    table.add_column("scorer")
    for column in ("hard is", "samples", "lowest", "quarter", "median", "three quarters", "highest"):
        table.add_column(column, justify="right")
    table.add_column("file", overflow="fold")
    for path in paths:
        _row(table, load_scores(path), path)
    Console(width=None if Console().is_terminal else 160).print(table)


def _row(table: Table, scores: Scores, path: Path) -> None:
    observed = scores.values[~np.isnan(scores.values)]
    finite = observed[np.isfinite(observed)]
    quartiles = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]) if len(finite) else [np.nan] * 5
    if len(observed) > len(finite):  # samples that were never learned, say
        quartiles[-1] = observed.max()
    table.add_row(scores.scorer, scores.hard, f"{len(observed):,}", *(f"{q:.4g}" for q in quartiles), str(path))
