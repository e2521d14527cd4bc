"""Modules of the user's own, beside timm's models: copied, tried on one batch, and known by what they are made of.

Shapes: N images, C classes, S×T their size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.models.structure import structure


def of_module(module: nn.Module, whose: str, num_classes: int, spec: InputSpec, classes: list[str]) -> BuiltModel:
    """A copy of a module, as if it had been built by name.

    Args:
        module: normalised images, float32 N×channels×S×T, to logits N×C. It is left as it is.
        whose: "student" or "teacher", for messages.
        num_classes: C.
        spec: the input that it will be given.
        classes: their names.

    Raises:
        ValueError: no module, or one that does not make logits of that shape of such images.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"{whose}: {type(module).__name__} given, allowed is an nn.Module from images to logits")
    own = copy.deepcopy(module).cpu()
    _try(own, whose, num_classes, spec)
    info = {"module": f"{type(module).__module__}.{type(module).__qualname__}"}
    return BuiltModel(own, type(module).__name__, num_classes, spec, classes, info, structure=structure(own))


@torch.no_grad()
def _try(module: nn.Module, whose: str, num_classes: int, spec: InputSpec) -> None:
    """Give the module two grey images, in evaluation mode, and look at the shape of what comes out."""
    training = [(part, part.training) for part in module.modules()]
    height, width = spec.size_HW
    images = torch.zeros(2, spec.channels, height, width)
    shape, name = f"N×{spec.channels}×{height}×{width}", type(module).__name__
    try:
        logits = module.eval()(images)
    except Exception as error:  # whatever a stranger's code raises
        raise ValueError(f"{whose} {name} cannot take images of shape {shape}: {error}") from error
    finally:
        for part, before in training:
            part.training = before
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        given = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"{whose} {name} puts out {given} for two images ({shape}); the data has {num_classes} classes, so allowed "
            f"is shape (2, {num_classes})"
        )
