"""A dry step of a run's models, before anything is trained or recorded for it.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdprune.checks import EMA
from kdprune.losses.common.base import LossInput
from kdprune.losses.common.sum import build_loss
from kdprune.models.features import Features, last_stages
from kdprune.models.inputs import Inputs
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.job import Job, make_student
from kdprune.pipeline.loss import build_on, layers_given
from kdprune.pipeline.recipes import teacher_recipe
from kdprune.pipeline.teachers import requested_teachers

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class _Answer:
    """What a model said of noise.

    Attributes:
        who: the option and the name of the model, for messages.
        logits_NC: with a graph if the model is to be trained.
        features: outputs of layers by module path.
    """

    who: str
    logits_NC: Tensor
    features: dict[str, Tensor]


def rehearse(job: Job, given: Sequence[BuiltModel | None]) -> None:
    """Take a step of the student and of teachers that are to be trained, and let teachers that have weights answer.

    All of it is done with copies, on the host, in float32, on one or two images of noise. No model and no random
    generator is changed.

    Args:
        given: the teachers of the settings, None where one is to be trained.

    Raises:
        ValueError: a model does not take its images, or has other outputs than one for each class; layers that are not
            there or cannot be compared; logits or a loss that are not finite; nothing to train.
    """
    config = job.config
    with torch.random.fork_rng(devices=[]):
        teachers = [
            built or make_student(teacher_recipe(config, request.name), job.session)
            for request, built in zip(requested_teachers(config), given, strict=True)
        ]
        pairs = _pairs(job, teachers)
        answers = [
            _ask(job, "--teacher.models", built, [path for _, path in pairs], trains=known is None)
            for built, known in zip(teachers, given, strict=True)
        ]
        for answer, known in zip(answers, given, strict=True):
            if known is None:
                _step(answer, _of_labels(job, answer))
        student = _ask(job, "--student.model", job.student, [path for path, _ in pairs], trains=True)
        if config.teacher.models == [EMA]:
            answers = [student]
        _step(student, {**_of_labels(job, student), **_of_teachers(job, student, answers, pairs)})


def _pairs(job: Job, teachers: list[BuiltModel]) -> Pairs:
    """The layers that the loss compares, of the student and of its one teacher."""
    if job.loss is None or not job.loss.needs_features:
        return []
    given = layers_given(job.config) or last_stages(job.student.model, teachers[0].model)
    return list(build_loss(job.config.distill.loss, job.config.distill.temperature, given).layers)


def _ask(job: Job, option: str, built: BuiltModel, paths: list[str], trains: bool) -> _Answer:
    """Logits and features of a copy of a model, in the mode in which it will be used."""
    spec, who = built.spec, f"{option}: {built.name}"
    model = deepcopy(built.model).train(trains)
    taps = Features(model, paths, option[2:].partition(".")[0])
    height, width = spec.size_HW
    images = _noise(job, spec.channels, height, width)
    count, shape = len(images), f"{spec.channels}×{height}×{width}"
    try:
        with torch.set_grad_enabled(trains):
            logits = model(Inputs(spec)(images))
    except Exception as error:  # whatever a model says of images that do not fit
        raise ValueError(
            f"{who} fails on {count} images of {shape}: {_first_line(error)}; give another --data.image_size or "
            f"another model{_made_for(built.model)}"
        ) from error
    classes = job.session.data.num_classes
    if not isinstance(logits, Tensor) or logits.shape != (count, classes):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{who} puts out {found} for {count} images of {shape}; the data has {classes} classes, so allowed is "
            f"shape ({count}, {classes})"
        )
    if not logits.isfinite().all():
        raise ValueError(f"{who} puts out logits that are not finite; are its weights?")
    return _Answer(who, logits, taps.taken())


def _noise(job: Job, channels: int, height: int, width: int) -> Tensor:
    """Two uint8 images, or one where a process never sees more at once: batch normalisation may refuse that."""
    config = job.config.train
    count = min(2, config.batch_size // (job.session.accelerator.num_processes * config.grad_accum))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def _of_labels(job: Job, answer: _Answer) -> dict[str, Tensor]:
    if not job.labelled:
        return {}
    smoothing = job.config.train.smoothing
    return {"cross-entropy": F.cross_entropy(answer.logits_NC, _labels(job, answer), label_smoothing=smoothing)}


def _of_teachers(job: Job, student: _Answer, teachers: list[_Answer], pairs: Pairs) -> dict[str, Tensor]:
    """The loss of distillation, with parameters of its own."""
    if job.loss is None:
        return {}
    distill = job.config.distill
    loss = build_loss(distill.loss, distill.temperature, pairs)
    features = {name: value.detach() for name, value in teachers[0].features.items()}
    if pairs:
        loss.check(job.session.data.num_classes)
        of_student = {name: value.detach() for name, value in student.features.items()}
        build_on(loss, of_student, features, job.student.name, job.config.teacher.models[0])
    logits_NC = torch.stack([teacher.logits_NC.detach() for teacher in teachers]).mean(0)
    labels = _labels(job, student) if job.labelled else None
    batch = LossInput(student.logits_NC, logits_NC, labels, torch.arange(len(logits_NC)), student.features, features)
    weighs = job.dynamic is not None and job.dynamic.weighs
    value = loss(batch, reduction="none").mean() if weighs else loss(batch)
    return {f"--distill.loss {distill.loss}": value}


def _labels(job: Job, answer: _Answer) -> Tensor:
    return torch.arange(len(answer.logits_NC)) % job.session.data.num_classes


def _step(answer: _Answer, losses: dict[str, Tensor]) -> None:
    """Look at the parts of a loss, and at its way back."""
    for name, value in losses.items():
        if not value.isfinite():
            raise ValueError(f"{answer.who}: {name} is {value.item():g} on noise, before anything is trained")
    if not losses:
        return
    try:
        torch.stack(list(losses.values())).sum().backward()
    except Exception as error:  # of a model or a loss of somebody's own
        raise ValueError(f"{answer.who} cannot be trained: {_first_line(error)}") from error


def _made_for(model: nn.Module) -> str:
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return f" (this one was made for {size[-2]}×{size[-1]})" if size else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
