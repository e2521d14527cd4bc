"""`kdprune evaluate`: the figures of a run's student, as tables or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.table import Table

from kdprune.cli.console import console
from kdprune.pipeline.evaluate import Evaluation, evaluate_run


def print_evaluation(path: Path, as_json: bool, class_mass: str | None) -> None:
    """Measure and print."""
    evaluation = evaluate_run(path, class_mass)
    if not evaluation.is_main_process:
        return
    if as_json:
        print(json.dumps({**evaluation.result, "classes": evaluation.data.classes}))
        return
    _print(path, evaluation)
    if class_mass:
        _print_class_mass(evaluation)


def _print(path: Path, evaluation: Evaluation) -> None:
    out, result, classes = console(110), evaluation.result, evaluation.data.classes
    out.print(
        f"{path}: {result['samples']:,} held-out samples\n"
        f"top-1 {100 * result['top1']:.2f}%   top-5 {100 * result['top5']:.2f}%   loss {result['loss']:.4f}   "
        f"calibration error {100 * result['calibration_error']:.2f}%"
    )
    table = Table("class", "accuracy %", title="worst class first")
    measured = [
        (accuracy, name) for accuracy, name in zip(result["per_class"], classes, strict=True) if accuracy is not None
    ]
    ranked = sorted(measured, key=lambda pair: pair[0])
    for accuracy, name in ranked[:50]:
        table.add_row(name, f"{100 * accuracy:.1f}")
    out.print(table)


def _print_class_mass(evaluation: Evaluation) -> None:
    result, data = evaluation.result, evaluation.data
    assert data.test is not None
    done = result["class_mass"]
    before, after = result, done["corrected"]
    out = console(110)
    out.print(
        f"\nClass biases moved so that the mean predicted probability over {done['training_images']:,} training images "
        "(of all classes, kept or not, their labels unused) is the frequency of the class among all training labels. "
        "Neither held-out images nor their labels have a part in it."
    )
    table = Table("class", "mass %", "wanted %", "offset")
    moved = sorted(done["classes"], key=lambda c: -abs(done["offsets"][c]))
    for c in moved[:20]:
        mass, wanted = 100 * done["mass_before"][c], 100 * done["mass_wanted"][c]
        table.add_row(data.classes[c], f"{mass:.3g}", f"{wanted:.3g}", f"{done['offsets'][c]:+.2f}")
    out.print(table)
    table = Table("held-out errors", "samples", "before", "after")
    samples = before["samples"]
    table.add_row("all classes", f"{samples:,}", *(str(round((1 - r["top1"]) * samples)) for r in (before, after)))
    counts = np.bincount(data.test.labels[data.test.readable], minlength=data.num_classes)
    for c in [c for c in evaluation.missing if counts[c]][:20]:
        errors = (str(round((1 - r["per_class"][c]) * counts[c])) for r in (before, after))
        table.add_row(f"{data.classes[c]} (not in the subset)", f"{counts[c]:,}", *errors)
    out.print(table)
