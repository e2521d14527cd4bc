"""What recording of every kind ends in, and how a model is made ready to be observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.models.penultimate import Penultimate
from kdprune.models.spec import BuiltModel
from kdprune.passes.evaluation import student_logits
from kdprune.pipeline.session import Session
from kdprune.pipeline.student import place
from kdprune.pipeline.summary import NOTHING
from kdprune.runs.reading import read_summary


@dataclass(frozen=True)
class Recorded:
    """A record that is there.

    Attributes:
        folders: for `observe`: one, or those of several repeats.
        cost: of making it, whenever that was: seconds, forward and backward sample passes; nothing where it is a
            by-product.
    """

    folders: list[Path]
    cost: dict[str, float] = field(default_factory=lambda: dict(NOTHING))


def cost_of(runs: Sequence[Path] = (), forward: int = 0, backward: int = 0) -> dict[str, float]:
    """What trainings cost, and passes beside them."""
    trained = [read_summary(run)["cost"]["student_training"] for run in runs]
    cost = {name: sum(one[name] for one in trained) for name in NOTHING}
    cost["forward_samples"] += forward
    cost["backward_samples"] += backward
    return cost


def model_of(weights: Path, session: Session) -> BuiltModel:
    """The model of a weights file."""
    return load_model(weights, None if session.student is None else deepcopy(session.student.model))


def placed(built: BuiltModel, session: Session) -> tuple[Inputs, Penultimate, Callable[[Tensor], Tensor]]:
    """A model on its device, with a tap on its features: inputs, tap, from uint8 views to logits."""
    inputs = place(built, session.accelerator.device)
    tap = Penultimate(built.model.eval())
    return inputs, tap, student_logits(built.model, inputs, session.accelerator)
