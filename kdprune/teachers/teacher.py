"""A teacher: a frozen model with its own idea of an input, and what was checked of it before the first step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdprune.models.build import count_parameters
from kdprune.models.hashing import weights_hash
from kdprune.models.inputs import Inputs
from kdprune.models.spec import BuiltModel
from kdprune.teachers.frozen import FrozenTeacher, freeze, short

log = logging.getLogger("kdprune")


@dataclass
class Teacher:
    """A frozen teacher.

    Attributes:
        built: name, input and classes; its model is the engine's network.
        inputs: from uint8 views to its input.
        engine: runs it; no module, so that no trainer can reach it.
        test_top1: accuracy on held-out data, measured before the first step; None where there is none.
        weights_hash: SHA-256 of its weights, hex.
        parameters: how many.
        source: where its weights come from.
        training: the summary of its training, where it was trained here.
    """

    built: BuiltModel
    inputs: Inputs
    engine: FrozenTeacher
    weights_hash: str
    parameters: int
    source: str
    test_top1: float | None = None
    training: dict[str, Any] | None = None

    def __call__(self, views_NCHW: Tensor) -> Tensor:
        """Logits N×C of uint8 views, without gradient."""
        return self.engine(self.inputs(views_NCHW))

    @property
    def precision(self) -> str:
        """The numbers that the engine computes in: float32, bfloat16 or float16."""
        return short(self.engine.dtype)

    def summary(self) -> dict[str, Any]:
        """What a run's summary says of a teacher."""
        measured = ("train_seconds", "images_per_second", "epochs", "steps", "keep_fraction", "seed")
        return {
            "name": self.built.name,
            "source": self.source,
            "parameters": self.parameters,
            "training": None if self.training is None else {name: self.training[name] for name in measured},
            "test_top1": self.test_top1,
            "engine": self.engine.route,
            "precision": self.precision,
            "weights_hash": self.weights_hash,
        }


def make_teacher(
    built: BuiltModel,
    source: str,
    example: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    fold: bool,
    compile: bool,
    batch_size: int | None = None,
    known: tuple[str, str] | None = None,
) -> Teacher:
    """Freeze a built model.

    Args:
        source: where its weights come from, in words.
        example: uint8 views, to compare the frozen engine with the model as it was.
        dtype: the run's precision; a teacher whose logits do not bear it runs in float32.
        fold, compile: how far the engine may go.
        batch_size: of the run, for a compiled engine.
        known: route and precision of the engine, where they were measured before.
    """
    inputs = Inputs(built.spec, device, is_convolutional(built.model))
    identity, parameters = weights_hash(built.model.state_dict()), count_parameters(built.model)
    engine = freeze(
        built.model, device=device, dtype=dtype, example=inputs(example), compile=compile, fold=fold,
        batch_size=batch_size, name=built.name, known=known,
    )  # fmt: skip
    built.model = engine.network  # the engine works on a copy of its own; nobody needs a second one
    return Teacher(built, inputs, engine, identity, parameters, source)


def is_convolutional(model: nn.Module) -> bool:
    """Whether channels_last pays: most of the layers with weights are spatial convolutions."""
    convolutions = sum(isinstance(m, nn.Conv2d) and m.kernel_size != m.stride for m in model.modules())
    return convolutions > sum(isinstance(m, nn.Linear) for m in model.modules())


def warn_if_near_chance(name: str, top1: float, num_classes: int) -> None:
    """A teacher that guesses teaches noise: most often its classes are in another order than the data's."""
    chance = 1 / num_classes
    if top1 < chance + min(chance, (1 - chance) / 10):  # of a few classes, twice as often as chance is far from it
        log.warning(
            "teacher %s has %.1f%% top-1 on held-out data, near chance (%.1f%%): are its classes in the data's order, "
            "is it given the right mean, std and input size?",
            name, 100 * top1, 100 * chance,
        )  # fmt: skip


def warn_if_smoothed(name: str, smoothing: float, temperature: float) -> None:
    """Label smoothing erases what a high temperature would show (Müller et al. 2019, arXiv 1906.02629)."""
    if smoothing > 0 and temperature > 2:
        log.warning(
            "teacher %s was trained with label smoothing %g: its soft targets carry little at temperature %g; "
            "try --distill.temperature 1",
            name, smoothing, temperature,
        )  # fmt: skip
