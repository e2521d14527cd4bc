"""Which weights of a model can be pruned: those of convolutions and linear layers, by timm's tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from timm.layers import std_conv
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from kdprune.messages import unknown
from kdprune.models.create import head_names

UNFIT = "unfit"
WHOLE = ("first", "last", UNFIT)
GROUP = 4  # weights of a group of a semi-structured pattern
# A standardised weight is (w - mean) / std: a zero in it is no zero in the convolution, so pruning it means nothing.
_STANDARDISED = tuple(kind for kind in vars(std_conv).values() if isinstance(kind, type) and issubclass(kind, _ConvNd))
_STANDARDISED = tuple(kind for kind in _STANDARDISED if kind.__module__ == std_conv.__name__)


class Prunable(NamedTuple):
    """The weights of a model that may be pruned, and those that are left whole because somebody asked for it.

    Attributes:
        names: in the order of the model.
        excluded: in the order of the model.
    """

    names: tuple[str, ...]
    excluded: tuple[str, ...] = ()


def prunable(model: nn.Module, exclude: Collection[str] = ()) -> Prunable:
    """The trained weights of convolutions and linear layers; one that several layers share stands once.

    Args:
        model: any module.
        exclude: of `WHOLE`: "first" leaves out the first of them, "last" the classifier, "unfit" those whose input
            dimension is no multiple of four.

    Raises:
        ValueError: another word in `exclude`; nothing is left.
    """
    for word in exclude:
        if word not in WHOLE:
            raise ValueError(unknown("layer to leave whole", word, WHOLE))
    parameters = dict(model.named_parameters())  # without repetition
    names = [
        name
        for name in (f"{path}.weight" if path else "weight" for path, layer in _layers(model))
        if name in parameters and parameters[name].requires_grad
    ]
    excluded = {names[0]} if names and "first" in exclude else set()
    excluded |= set(_last(model, names)) if "last" in exclude else set()
    excluded |= {name for name in names if UNFIT in exclude and not holds_groups(parameters[name])}
    left = tuple(name for name in names if name not in excluded)
    if not left:
        raise ValueError(f"it has no convolution or linear layer whose weights could be pruned{_but(excluded)}")
    return Prunable(left, tuple(name for name in names if name in excluded))


def weights_of(model: nn.Module, names: Collection[str]) -> Mapping[str, Tensor]:
    """Parameters of a model by their names, in the order of the names."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in names}


def holds_groups(weight: Tensor) -> bool:
    """Whether a weight can be cut into groups of four along its input dimension."""
    return weight.ndim > 1 and weight.shape[1] % GROUP == 0


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (_ConvNd, nn.Linear)
    return [
        (path, layer)
        for path, layer in model.named_modules()
        if isinstance(layer, kinds) and not isinstance(layer, _STANDARDISED)
    ]


def _last(model: nn.Module, names: list[str]) -> list[str]:
    heads = head_names(model)
    return [name for name in names if name.startswith(heads)] if heads else names[-1:]


def _but(excluded: Collection[str]) -> str:
    return f", except {', '.join(sorted(excluded))}" if excluded else ""
