"""What pruning does to each class: how many samples it keeps, and how its held-out accuracy moves.

Sorscher et al. 2022 (arXiv 2206.14486), appendix H: many metrics prune some classes far more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from kdprune.data.subset import load_subset
from kdprune.pipeline.evaluate import Evaluation, evaluate_run
from kdprune.runs.reading import SUBSET


@dataclass(frozen=True)
class Effect:
    """What a pruned run did to the classes, beside a full one.

    Attributes:
        run: the pruned one.
        rows: a row a class: `class`, `samples` (of the unpruned training set), `kept`, `kept_share`, `full`, `pruned`
            (held-out accuracies), `difference`, the class that lost most first.
        pearson, spearman: of kept share and difference, over classes; NaN where one of them is the same for all.
        worst: `full` and `pruned` accuracy of the class with the lowest one.
    """

    run: Path
    rows: list[dict[str, Any]]
    pearson: float
    spearman: float
    worst: tuple[float, float]


def effects(full: Path, pruned: Sequence[Path]) -> list[Effect]:
    """Measure finished runs, and compare each pruned one with the full one.

    Raises:
        FileNotFoundError: not a run directory.
        ValueError: runs on different data; data without labels.
    """
    if not pruned:
        raise ValueError("a pruned run is needed beside the full one: kdprune analyse classes FULL PRUNED …")
    base = evaluate_run(full)
    return [_effect(run, base, full, evaluate_run(run)) for run in pruned]


def _effect(run: Path, base: Evaluation, full: Path, other: Evaluation) -> Effect:
    data = base.data
    for name in ("fingerprint", "test_fingerprint"):
        here, there = getattr(other.data, name), getattr(data, name)
        if here != there:
            raise ValueError(f"{run} and {full} are runs on different data: {name} is {here[:12]}… and {there[:12]}…")
    labels = data.train.labels
    ids = load_subset(run / SUBSET, data.fingerprint, len(labels)).ids
    size_C, kept_C = (np.bincount(y[y >= 0], minlength=data.num_classes) for y in (labels, labels[ids]))
    accuracies = (base.result["per_class"], other.result["per_class"])
    return compare(run, data.classes, size_C, kept_C, accuracies)


def compare(
    run: Path,
    classes: Sequence[str],
    size_C: np.ndarray,
    kept_C: np.ndarray,
    accuracies: tuple[Sequence[float | None], Sequence[float | None]],
) -> Effect:
    """The effect of a subset, from counts and accuracies of the classes.

    Args:
        size_C, kept_C: samples of each class, before and after pruning.
        accuracies: held-out, of the full and of the pruned run; None where a class has no held-out sample. Such a
            class, and one without training samples, is left out.
    """
    rows: list[dict[str, Any]] = []
    for name, size, kept, full, pruned in zip(classes, size_C, kept_C, *accuracies, strict=True):
        if size and full is not None and pruned is not None:
            counts = {"samples": int(size), "kept": int(kept), "kept_share": float(kept / size)}
            rows.append({"class": name, **counts, "full": full, "pruned": pruned, "difference": pruned - full})
    if not rows:
        raise ValueError(f"{run}: no class has both training and held-out samples with labels")
    rows.sort(key=lambda row: row["difference"])
    share_C, difference_C = ([row[column] for row in rows] for column in ("kept_share", "difference"))
    pearson = spearman = float("nan")
    if np.ptp(share_C) > 0 and np.ptp(difference_C) > 0:
        pearson, spearman = float(pearsonr(share_C, difference_C)[0]), float(spearmanr(share_C, difference_C)[0])
    worst = (min(row["full"] for row in rows), min(row["pruned"] for row in rows))
    return Effect(run, rows, pearson, spearman, worst)
