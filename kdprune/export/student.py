"""A run's student with its preprocessing, and images on which exports are compared with it.

Shapes: N images, C channels, H×W pixels of the student's input, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdprune.models.inputs import Inputs
from kdprune.models.locate import resolve_teacher
from kdprune.models.saved import load_model
from kdprune.models.spec import BuiltModel

TRACED = 2  # images that a graph is traced with; 1 would be taken for a constant
COMPARED = (1, TRACED, 7)  # images that it is compared with


class Deployed(nn.Module):
    """uint8 N×C×H×W, at the student's size, to logits float32 N×K: normalisation and network in one."""

    def __init__(self, built: BuiltModel) -> None:
        super().__init__()
        self.inputs, self.model = Inputs(built.spec), built.model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.inputs(images))
        return logits.float()


@dataclass(frozen=True)
class Difference:
    """How far the logits of an export are from those of the student that it was made from.

    Attributes:
        largest: the largest absolute difference of two logits.
        relative: that, over the largest logit.
    """

    largest: float
    relative: float


def load_deployed(run: str) -> tuple[BuiltModel, Deployed]:
    """The student of a run, a snapshot (RUN@EPOCH) or a weights file, in evaluation mode on the CPU, in float32.

    Raises:
        ValueError: nothing there, damaged weights, or a module of the user's own, which no name can build again.
    """
    weights = resolve_teacher(run)
    if weights is None:
        raise ValueError(f"no such run directory: {run}")
    built = load_model(Path(weights))
    built.model.float().eval().requires_grad_(False)
    return built, Deployed(built).eval()


def images_for(built: BuiltModel, count: int) -> Tensor:
    """Images that differ in every pixel, and some that hardly do: uint8 N×C×H×W, the same at each call."""
    generator = torch.Generator().manual_seed(count)
    shape = (count, built.spec.channels, *built.spec.size_HW)
    images_NCHW = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    images_NCHW[count // 2 :] //= 8
    return images_NCHW


def difference(logits_NK: list[Tensor], expected_NK: list[Tensor]) -> Difference:
    """Compare the logits of several batches.

    Raises:
        ValueError: they are not finite.
    """
    made, wanted = torch.cat(logits_NK).double(), torch.cat(expected_NK).double()
    if not (made.isfinite().all() and wanted.isfinite().all()):
        raise ValueError("its logits, or those of the student, are not finite")
    largest = (made - wanted).abs().max().item()
    return Difference(largest, largest / max(wanted.abs().max().item(), 1e-12))
