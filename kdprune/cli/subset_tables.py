"""Tables of subsets: what was chosen, and what `--describe` says of it. Imports nothing heavy at its top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdprune.data.subset import Subset
    from kdprune.pipeline.describe import Description

SHOWN = 24  # classes in a table


def print_subsets(subsets: dict[Path, Subset]) -> None:
    """A row a subset: how much of it is kept, and by what it was chosen."""
    rows = [
        (str(path), f"{len(one.ids):,}", f"{one.total:,}", one.chosen.get("resolved", one.chosen["selector"]))
        for path, one in subsets.items()
    ]
    _print("", ["subset", "kept", "of", "selector"], rows)


def print_description(description: Description) -> None:
    """What is kept of all, of the hardest and of each class; overlaps of subsets, and correlations of scores."""
    scores, present = description.scores[0], description.sizes_C > 0
    rows = []
    for one in description.subsets:
        shares = 100 * one.counts_C[present] / description.sizes_C[present]
        numbers = [100 * one.subset.keep_fraction, 100 * one.shares[-1], 100 * one.shares[0]]
        ends = [shares.min(), shares.max()] if len(shares) else []
        rows.append((one.name, *(f"{number:.4g}" for number in [*numbers, *ends])))
    columns = ["subset", "of all", "of the hardest tenth", "of the easiest tenth"]
    columns += ["of the least kept class", "of the most kept class"] if present.any() else []
    _print(f"kept, %, by {description.names[0]} ({scores.scorer}, {scores.hard} is hard)", columns, rows)
    if present.any():
        _print_classes(description)
    if len(description.subsets) > 1:
        names = [one.name for one in description.subsets]
        _print_matrix("overlap of subsets: Jaccard, in brackets that of independent random subsets", names,
                      description.jaccard_SS, description.chance_SS)  # fmt: skip
    if len(description.scores) > 1:
        _print_matrix("rank correlation of difficulties: Spearman, in brackets Kendall", description.names,
                      description.spearman_FF, description.kendall_FF)  # fmt: skip


def _print_classes(description: Description) -> None:
    """Kept samples of each class, the least kept by the first subset first."""
    import numpy as np

    present = np.flatnonzero(description.sizes_C)
    shares = description.subsets[0].counts_C[present] / description.sizes_C[present]
    shown, title = present[np.argsort(shares, kind="stable")], "kept samples of each class"
    if len(shown) > SHOWN:
        title += f": the {SHOWN // 2} least and the {SHOWN // 2} most kept of {len(shown):,}"
        shown = np.concatenate([shown[: SHOWN // 2], shown[-(SHOWN // 2) :]])
    counts = [description.sizes_C, *(one.counts_C for one in description.subsets)]
    rows = [(description.scores[0].classes[label], *(f"{of_C[label]:,}" for of_C in counts)) for label in shown]
    _print(title, ["class", "samples", *(one.name for one in description.subsets)], rows)


def _print_matrix(title: str, names: Sequence[str], values: Any, beside: Any) -> None:
    """Below the diagonal of a symmetric matrix."""
    rows = [
        (name, *(f"{values[i, j]:.3f} ({beside[i, j]:.3f})" for j in range(i)), "1") for i, name in enumerate(names)
    ]
    _print(title, ["", *names], rows)


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    from kdprune.cli.console import console

    out = console(110)
    table = Table(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    if title:
        out.print(f"\n{title}", highlight=False)
    out.print(table)
