"""`kdprune evaluate`: what a run's student does on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdprune.data.dataset import open_data
from kdprune.engine.evaluation import evaluate, held_out, student_logits
from kdprune.engine.run_dir import read_config
from kdprune.engine.runtime import make_accelerator
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.teachers.teacher import is_convolutional


def evaluate_run(path: Path, as_json: bool) -> dict[str, Any]:
    """Measure a finished run's student: top-1, top-5, loss, calibration, the accuracy of each class.

    Raises:
        FileNotFoundError: not a run directory, or a run without a student.
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
    result = evaluate(logits, held_out(data, built.spec, accelerator), data.num_classes, accelerator)
    if accelerator.is_main_process:
        if as_json:
            print(json.dumps({**result, "classes": data.classes}))
        else:
            _print(path, result, data.classes)
    return result


def _print(path: Path, result: dict[str, Any], classes: list[str]) -> None:
    console = Console()
    console.print(
        f"{path}: {result['samples']:,} held-out samples\n"
        f"top-1 {100 * result['top1']:.2f}%   top-5 {100 * result['top5']:.2f}%   loss {result['loss']:.4f}   "
        f"calibration error {100 * result['calibration_error']:.2f}%"
    )
    table = Table("class", "accuracy %", title="worst class first")
    ranked = sorted(zip(result["per_class"], classes, strict=True), key=lambda pair: pair[0])
    for accuracy, name in ranked[:50]:
        table.add_row(name, f"{100 * accuracy:.1f}")
    console.print(table)
