"""The distillation loss of a run, checked against data, teachers and models before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from kdprune import alpha as alpha_policies
from kdprune.checks import EMA
from kdprune.config import Config
from kdprune.data import recipe
from kdprune.losses.common.sum import WeightedSum, build_loss
from kdprune.pipeline.session import Session
from kdprune.teachers.entries import make_entries


def make_loss(config: Config, session: Session) -> WeightedSum:
    """The distillation loss, checked against the data, the teachers and each T that a search may choose.

    Raises:
        ValueError: the loss cannot do what it is asked to, or not with these targets.
    """
    layers = layers_given(config)
    loss = build_loss(config.distill.loss, config.distill.temperature, layers)
    _check(loss, config, session)
    search = alpha_policies.search(config.distill.alpha)
    for temperature in search.temperatures if search else ():
        tried = build_loss(config.distill.loss, temperature, layers)
        if temperature not in [getattr(part, "temperature", None) for part in tried.modules()]:
            raise ValueError(
                f"--distill.alpha: {config.distill.alpha} given, and no part of {config.distill.loss!r} takes its "
                "temperature from the run; allowed is a search over α alone"
            )
        _check(tried, replace(config, distill=replace(config.distill, temperature=temperature)), session)
    return loss


def _check(loss: WeightedSum, config: Config, session: Session) -> None:
    """Refuse what a loss cannot do with these teachers, targets and data."""
    data, text = session.data, config.distill.loss
    if config.distill.layers or not loss.needs_features:  # else the layers are found when both models are there
        loss.check(data.num_classes)
    if loss.needs_features and config.teacher.models == [EMA]:
        raise ValueError(f"--distill.loss: {text!r} compares features, which ema does not give")
    if loss.needs_features and len(config.teacher.models) > 1:
        raise ValueError(f"--distill.loss: {text!r} compares features, which needs one teacher")
    if loss.needs_features and config.teacher.targets == "cached":
        raise ValueError(f"--distill.loss: {text!r} compares features, which no cache holds")
    top_k = config.teacher.targets == "cached" and config.teacher.top_k is not None
    if top_k:
        make_entries(data.num_classes, config.teacher.top_k)  # refuses more than there are
    loss.check_targets(config.distill.temperature, top_k, len(config.teacher.models) > 1)
    if loss.needs_labels and (data.train.labels < 0).any():
        raise ValueError(f"--distill.loss: {text!r} needs labels, and the data set has none")
    if recipe.parse(config.data.augment).mixes and not loss.accepts_mixed_labels:
        raise ValueError(f"--distill.loss: {text!r} cannot use the mixed labels of --data.augment")


def layers_given(config: Config) -> list[tuple[str, str]]:
    """`--distill.layers`, which may be none."""
    layers = config.distill.layers
    if wrong := [pair for pair in layers if len(pair) != 2]:
        raise ValueError(f"--distill.layers: {wrong[0]} given, allowed are pairs [student path, teacher path]")
    return [(student, teacher) for student, teacher in layers]


def build_on(
    loss: WeightedSum, student: dict[str, torch.Tensor], teacher: dict[str, torch.Tensor], *names: str
) -> None:
    """Give a loss its parameters, by the features of both models.

    Args:
        names: of the student and the teacher.

    Raises:
        ValueError: features that the loss cannot compare, with the layers that they are of.
    """
    try:
        loss.build(student, teacher)
    except ValueError as error:
        seen = " and ".join(
            f"the {whose} {name} has {_shapes(features)}"
            for whose, name, features in zip(("student", "teacher"), names, (student, teacher), strict=True)
        )
        raise ValueError(f"--distill.layers: {error}; {seen}") from None


def _shapes(features: dict[str, torch.Tensor]) -> str:
    """Layers with the shapes of what they put out, of one sample."""
    return ", ".join(f"{path}: {'×'.join(map(str, feature.shape[1:]))}" for path, feature in features.items())
