"""`kdprune evaluate`: what a run's student does on held-out data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kdprune.data.dataset import Data, open_data
from kdprune.data.place import Place
from kdprune.data.reader import plain_batches
from kdprune.data.subset import load_subset
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec
from kdprune.passes.class_mass import class_frequencies, class_mass_offsets, train_logits
from kdprune.passes.evaluation import evaluate, student_logits
from kdprune.runs.accelerator import make_accelerator
from kdprune.runs.run_dir import read_config
from kdprune.teachers.teacher import is_convolutional


def evaluate_run(path: Path, as_json: bool, class_mass: str | None = None) -> dict[str, Any]:
    """Measure a finished run's student: top-1, top-5, loss, calibration, the accuracy of each class.

    Args:
        class_mass: measure it once more with its biases moved by class mass: of the classes `missing` in its subset,
            or of `all`.

    Raises:
        FileNotFoundError: not a run directory, or a run without a student.
        ValueError: `missing` where no class is.
    """
    config = read_config(path)
    weights = path / "student.safetensors"
    if not weights.exists():
        raise FileNotFoundError(
            f"{path} has no student.safetensors: the run is not finished, its command goes on with it"
        )
    accelerator = make_accelerator(config.train.precision, [], config.output)
    with accelerator.main_process_first():
        data = open_data(config.data, progress=accelerator.is_main_process)
    built = load_model(weights)
    if data.test is None or built.num_classes != data.num_classes:
        raise ValueError(
            f"{path}: its student has {built.num_classes} classes, {config.data.dataset} has "
            f"{data.num_classes if data.test else 'no held-out part'}"
        )
    channels_last = is_convolutional(built.model)
    model = built.model.to(accelerator.device).eval()
    logits = student_logits(model, Inputs(built.spec, accelerator.device, channels_last), accelerator)
    batches = plain_batches(data.test, data.test.readable, built.spec, Place.of(accelerator, data.workers))
    result = evaluate(logits, batches, data.num_classes, accelerator)
    if class_mass:
        missing = missing_classes(path, data)
        result["class_mass"] = corrected_by_class_mass(
            logits, data, built.spec, accelerator, missing if class_mass == "missing" else range(data.num_classes)
        )
    if accelerator.is_main_process:
        if as_json:
            print(json.dumps({**result, "classes": data.classes}))
        else:
            _print(path, result, data.classes)
            if class_mass:
                _print_class_mass(result, data, missing)
    return result


def missing_classes(path: Path, data: Data) -> list[int]:
    """Classes of the training set of which the run's subset keeps no sample."""
    labels = data.train.labels
    ids = load_subset(path / "subset.json", data.fingerprint, len(labels)).ids
    return np.setdiff1d(labels[labels >= 0], labels[ids]).tolist()


def corrected_by_class_mass(
    logits_of: Callable[[Tensor], Tensor], data: Data, spec: InputSpec, accelerator: Accelerator, classes: Sequence[int]
) -> dict[str, Any]:
    """Held-out figures of a model after its biases were moved by class mass, with what was done. JSON values only."""
    if not classes:
        raise ValueError("--class_mass: missing given, but the run keeps samples of every class; allowed is all")
    target_C = class_frequencies(data)
    logits_NC = train_logits(logits_of, data, spec, accelerator)
    offsets_C = class_mass_offsets(logits_NC, target_C, classes)
    here_C = offsets_C.float().to(accelerator.device)
    assert data.test is not None
    batches = plain_batches(data.test, data.test.readable, spec, Place.of(accelerator, data.workers))
    after = evaluate(lambda views: logits_of(views).float() + here_C, batches, data.num_classes, accelerator)
    return {
        "classes": list(classes),
        "offsets": offsets_C.tolist(),
        "training_images": len(logits_NC),
        "mass_before": logits_NC.double().softmax(1).mean(0).tolist(),
        "mass_wanted": target_C.tolist(),
        "corrected": after,
    }


def _print(path: Path, result: dict[str, Any], classes: list[str]) -> None:
    console = Console()
    console.print(
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
    console.print(table)


def _print_class_mass(result: dict[str, Any], data: Data, missing: list[int]) -> None:
    assert data.test is not None
    done = result["class_mass"]
    before, after = result, done["corrected"]
    console = Console()
    console.print(
        f"\nClass biases moved so that the mean predicted probability over {done['training_images']:,} training images "
        "(of all classes, kept or not, their labels unused) is the frequency of the class among all training labels. "
        "Neither held-out images nor their labels have a part in it."
    )
    table = Table("class", "mass %", "wanted %", "offset")
    moved = sorted(done["classes"], key=lambda c: -abs(done["offsets"][c]))
    for c in moved[:20]:
        mass, wanted = 100 * done["mass_before"][c], 100 * done["mass_wanted"][c]
        table.add_row(data.classes[c], f"{mass:.3g}", f"{wanted:.3g}", f"{done['offsets'][c]:+.2f}")
    console.print(table)
    table = Table("held-out errors", "samples", "before", "after")
    samples = before["samples"]
    table.add_row("all classes", f"{samples:,}", *(str(round((1 - r["top1"]) * samples)) for r in (before, after)))
    counts = np.bincount(data.test.labels[data.test.readable], minlength=data.num_classes)
    for c in [c for c in missing if counts[c]][:20]:
        errors = (str(round((1 - r["per_class"][c]) * counts[c])) for r in (before, after))
        table.add_row(f"{data.classes[c]} (not in the subset)", f"{counts[c]:,}", *errors)
    console.print(table)
