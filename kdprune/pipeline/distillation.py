"""What a student is taught: the loss gets its layers and parameters when student and teachers are there."""

from __future__ import annotations

import logging

import torch

from kdprune import alpha as alpha_policies
from kdprune.data.counter import key
from kdprune.data.reader import Reader
from kdprune.losses.common.sum import WeightedSum, build_loss
from kdprune.models.features import Features, last_stages
from kdprune.models.inputs import Inputs
from kdprune.pipeline.dynamic import keep_fraction
from kdprune.pipeline.job import Job
from kdprune.pipeline.loss import build_on
from kdprune.teachers.targets import OnlineTargets
from kdprune.teachers.teacher import Teacher
from kdprune.training.step import Distillation

log = logging.getLogger("kdprune")


def with_layers(job: Job, loss: WeightedSum, teachers: list[Teacher]) -> WeightedSum:
    """The loss with the layers that it compares: the last stages of both models, unless they are given."""
    distill = job.config.distill
    if not loss.needs_features or distill.layers:
        return loss
    pairs = last_stages(job.student.model, teachers[0].engine.network)
    log.info("features are compared between %s", ", ".join(f"{a} and {b}" for a, b in pairs))
    loss = build_loss(distill.loss, distill.temperature, pairs)
    loss.check(job.session.data.num_classes)
    return loss


def distil(job: Job, targets: OnlineTargets, inputs: Inputs, reader: Reader) -> Distillation:
    """What the student is taught, ready for the first step.

    Args:
        job: its student is on the device, its loss has its layers.
    """
    loss, device = job.loss, job.session.accelerator.device
    assert loss is not None
    loss.to(device)
    features = _first_look(job, loss, targets, inputs, reader) if loss.needs_features else None
    loss.to(device)
    policy, fraction = alpha_policies.parse(job.config.distill.alpha), keep_fraction(job.config, job.subset)
    return Distillation(loss, targets, lambda progress: policy.at(fraction, progress), features)


def _first_look(job: Job, loss: WeightedSum, targets: OnlineTargets, inputs: Inputs, reader: Reader) -> Features:
    """Give a feature loss its parameters, whose shapes a small batch shows; gives the taps on the student's layers."""
    assert targets.features is not None
    taps = Features(job.student.model, (path for path, _ in loss.layers), "student")
    ids = torch.from_numpy(job.subset.ids[:4])
    batch = next(iter(reader.read([(ids, torch.zeros_like(ids))])))
    with torch.no_grad():
        job.student.model.eval()(inputs(batch.images))
        targets(batch)
    torch.manual_seed(key(job.config.seed_of("weights"), "projectors"))
    names = job.student.name, targets.teachers[0].built.name
    build_on(loss, taps.taken(), targets.features.taken(), *names)
    return taps
