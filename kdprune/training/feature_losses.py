"""What losses between features need before the first step: layers, a rehearsal, parameters from a first look."""

from __future__ import annotations

from typing import Any

import torch

from kdprune.config import Config
from kdprune.data.counter import key
from kdprune.losses.common.sum import build_loss
from kdprune.models.features import Features, last_stages
from kdprune.models.inputs import Inputs
from kdprune.models.spec import Built
from kdprune.training.task import Task


def layers_given(config: Config) -> list[tuple[str, str]]:
    """`--distill.layers`, which may be none."""
    layers = config.distill.layers
    if wrong := [pair for pair in layers if len(pair) != 2]:
        raise ValueError(f"--distill.layers: {wrong[0]} given, allowed are pairs [student path, teacher path]")
    return [(student, teacher) for student, teacher in layers]


def rehearse(config: Config, student: Built, teacher: Built) -> None:
    """Compare the features of two models once, before a teacher is trained for it: what cannot be is said now.

    Raises:
        ValueError: layers that are not there, or that the loss cannot compare.
    """
    pairs = layers_given(config) or last_stages(student.model, teacher.model)
    kd = build_loss(config.distill.loss, config.distill.temperature, pairs)
    seen = []
    for built, whose, paths in ((student, "student", [a for a, _ in kd.layers]),
                                (teacher, "teacher", [b for _, b in kd.layers])):  # fmt: skip
        taps = Features(built.model, paths, whose)
        with torch.no_grad():
            built.model.eval()(torch.zeros(2, built.spec.channels, built.spec.size, built.spec.size))
        seen.append(taps.taken())
        taps.close()
    kd.build(*seen)


def first_look(task: Task, inputs: Inputs) -> Features:
    """Give a feature loss its parameters, whose shapes a small batch shows; gives the taps on the student's layers."""
    kd: Any = task.kd
    assert task.targets is not None
    assert task.targets.features is not None
    taps = Features(task.built.model, (student for student, _ in kd.layers), "student")
    ids = torch.from_numpy(task.subset.ids[:4])
    batch = next(iter(task.reader.read([(ids, torch.zeros_like(ids))])))
    with torch.no_grad():
        task.built.model.eval()(inputs(batch.images))
        task.targets(batch)
    torch.manual_seed(key(task.run.config.seed, "projectors"))
    kd.build(taps.taken(), task.targets.features.taken())
    kd.to(batch.images.device)
    return taps
