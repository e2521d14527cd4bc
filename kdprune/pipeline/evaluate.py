"""What a run's student does on held-out data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdprune.artefact import damage
from kdprune.data.dataset import Data
from kdprune.data.reader import Batch, plain_batches
from kdprune.data.subset import load_subset
from kdprune.models.build import load_model
from kdprune.models.spec import BuiltModel
from kdprune.passes.class_mass import class_frequencies, class_mass_offsets, train_logits
from kdprune.passes.evaluation import batch_for, evaluate, student_logits
from kdprune.pipeline.given import NOTHING_GIVEN, Given
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.student import place
from kdprune.runs.accelerator import DTYPES, make_accelerator
from kdprune.runs.reading import SUBSET, SUMMARY, WEIGHTS, read_config, read_summary

log = logging.getLogger("kdprune")


@dataclass
class Evaluation:
    """Held-out figures of a run's student.

    Attributes:
        result: top1, top5, loss, calibration_error, per_class, samples; with `class_mass` the corrected ones. JSON.
        data: on which they were measured.
        missing: classes of which the run's subset keeps no sample.
    """

    result: dict[str, Any]
    data: Data
    missing: list[int]
    is_main_process: bool


def evaluate_run(path: Path, class_mass: str | None = None, given: Given = NOTHING_GIVEN) -> Evaluation:
    """Measure a finished run's student: top-1, top-5, loss, calibration, the accuracy of each class.

    Args:
        class_mass: measure it once more with its biases moved by class mass: of the classes `missing` in its subset,
            or of `all`.
        given: the run's data, and a module of the student's kind, where the run was given them.

    Raises:
        FileNotFoundError: not a run directory, or a run without a student.
        ValueError: `missing` where no class is.
    """
    config = read_config(path)
    weights = path / WEIGHTS
    if not weights.exists():
        raise FileNotFoundError(
            f"{path} has no {WEIGHTS}: the run is not finished, and its command goes on with it; or the file was lost, "
            "and --remake true trains it again"
        )
    for problem in damage(path):
        log.warning("%s: what is measured may not be what was trained", problem)
    accelerator = make_accelerator(config.train.precision, [], config.output)
    session = open_session(config, accelerator, replace(given, student=None))
    data, built = session.data, load_model(weights, given.student)
    if data.test is None or built.num_classes != data.num_classes:
        raise ValueError(
            f"{path}: its student has {built.num_classes} classes, {config.data.dataset} has "
            f"{data.num_classes if data.test else 'no held-out part'}"
        )
    _warn_of_other_data(path, data)
    inputs = place(built, accelerator.device)
    logits = student_logits(built.model.eval(), inputs, accelerator)
    batches = held_out(built, session)
    result = evaluate(logits, batches, data.num_classes, accelerator)
    missing = missing_classes(path, data)
    if class_mass:
        classes = missing if class_mass == "missing" else range(data.num_classes)
        result["class_mass"] = corrected_by_class_mass(logits, built, session, classes)
    return Evaluation(result, data, missing, accelerator.is_main_process)


def held_out(built: BuiltModel, session: Session) -> Iterator[Batch]:
    """This process's part of the held-out samples, as a model takes them."""
    test, place = session.data.test, session.place
    assert test is not None
    batch_size = batch_for(built.model, built.spec.size_HW, place.device, DTYPES[session.accelerator.mixed_precision])
    return plain_batches(test, test.readable, built.spec, place, batch_size)


def _warn_of_other_data(path: Path, data: Data) -> None:
    """Held-out data may have changed since the run, or be meant to differ."""
    summary = read_summary(path) if (path / SUMMARY).is_file() else {}
    if summary.get("inputs", {}).get("test_data", data.test_fingerprint) != data.test_fingerprint:
        log.warning("%s: the held-out data is not that of the run: its accuracy there was another", path)


def missing_classes(path: Path, data: Data) -> list[int]:
    """Classes of the training set of which the run's subset keeps no sample."""
    labels = data.train.labels
    ids = load_subset(path / SUBSET, data.fingerprint, len(labels)).ids
    return np.setdiff1d(labels[labels >= 0], labels[ids]).tolist()


def corrected_by_class_mass(
    logits_of: Callable[[Tensor], Tensor], built: BuiltModel, session: Session, classes: Sequence[int]
) -> dict[str, Any]:
    """Held-out figures of a model after its biases were moved by class mass, with what was done. JSON values only."""
    if not classes:
        raise ValueError("--class_mass: missing given, but the run keeps samples of every class; allowed is all")
    data, accelerator = session.data, session.accelerator
    assert data.test is not None
    target_C = class_frequencies(data)
    logits_NC = train_logits(logits_of, data, built.spec, accelerator)
    offsets_C = class_mass_offsets(logits_NC, target_C, classes)
    on_device_C = offsets_C.float().to(accelerator.device)
    batches = held_out(built, session)
    after = evaluate(lambda views: logits_of(views).float() + on_device_C, batches, data.num_classes, accelerator)
    return {
        "classes": list(classes),
        "offsets": offsets_C.tolist(),
        "training_images": len(logits_NC),
        "mass_before": logits_NC.double().softmax(1).mean(0).tolist(),
        "mass_wanted": target_C.tolist(),
        "corrected": after,
    }
