"""Channels of a network that can only be removed together, by the dependency graph of Torch-Pruning.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900): a channel that a layer puts out is a
channel of every layer that is added to it and of the norms after it, too, and an input of every layer that reads it.
The graph comes from autograd's own of one forward pass. It is trusted for operations that are known to treat each
channel alone. Channels that pass anything else (a LayerNorm, a padding of channels, the heads of an attention) are left
whole, and whoever removes channels compares the outputs (`kdprune.pipeline.shrink`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdprune.messages import listed
from kdprune.models.create import head_names
from kdprune.models.prunable import prunable
from kdprune.models.removed import IN, OUT, Removed

_ALONE = ("CONV", "DEPTHWISE_CONV", "BN", "LINEAR", "ELEMENTWISE", "RESHAPE", "CONCAT")  # tp's kinds of nodes


@dataclass
class Coupled:
    """Channels that layers share.

    Attributes:
        layer: path of a layer that puts them out, in whose order they are.
        others: paths of the other layers whose outputs they are.
        channels: how many.
        sets: one channel stands for this many, one in each group of a grouped convolution.
        held: why they cannot be removed; None where they can.
    """

    layer: str
    others: tuple[str, ...]
    channels: int
    sets: int
    held: str | None
    group: Any  # Torch-Pruning's

    @property
    def units(self) -> int:
        """How many channels can be decided on separately."""
        return self.channels // self.sets

    def chosen(self, units: Collection[int]) -> list[int]:
        """The channels that some units stand for, ascending."""
        return sorted(unit + part * self.units for unit in units for part in range(self.sets))


class Channels:
    """The coupled channels of a network, but for its input and its classifier's outputs.

    Attributes:
        coupled: in the order of the network.

    Args:
        model: put into evaluation mode, its parameters all with gradients.
        input_shape: channels, height and width of an image.

    Raises:
        ValueError: Torch-Pruning is not installed, or cannot trace the network, or some layers of it, which are named.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
        require_torch_pruning()
        import torch_pruning

        self._model = model.eval().requires_grad_(True)
        self._names = {layer: path for path, layer in model.named_modules()}
        heads = head_names(model)
        self._heads = [layer for path, layer in model.named_modules() if f"{path}.".startswith(heads)] if heads else []
        self._prunable = set(prunable(model).names)
        self._graph = torch_pruning.DependencyGraph()
        try:
            with torch.enable_grad():
                self._graph.build_dependency(model, (torch.zeros(1, *input_shape),), verbose=False)
        except Exception as error:  # it has no errors of its own
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"torch-pruning cannot trace {type(model).__name__}: {first}") from error
        self._check_traced()
        place = {path: number for number, path in enumerate(self._names.values())}
        self.coupled = sorted(self._find(), key=lambda found: min(place[path] for path in (found.layer, *found.others)))

    def removed(self, coupled: Coupled, units: Collection[int]) -> Removed:
        """What goes with some channels: of each layer, the outputs and the inputs.

        Raises:
            ValueError: others of these channels would have to go, too.
        """
        chosen = coupled.chosen(units)
        found = self._together(coupled.group, chosen)
        if found[coupled.layer, OUT] != chosen:
            raise ValueError(f"channels of {coupled.layer} go only together with others of it")
        return found

    def _together(self, group: Any, channels: list[int]) -> Removed:
        root = group[0].dep
        found: Removed = {}
        for item in self._graph.get_pruning_group(root.target.module, root.handler, channels).items:
            path = self._names.get(item.dep.target.module)
            if path is not None:
                found[path, self._side(item.dep)] = sorted(set(item.idxs))
        return found

    def _find(self) -> Iterator[Coupled]:
        import torch_pruning

        roots = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)
        for group in self._graph.get_all_groups(ignored_layers=self._heads, root_module_types=roots):
            outs = [
                path
                for item in group.items
                if (path := self._names.get(item.dep.target.module)) is not None
                and self._side(item.dep) == OUT
                and isinstance(item.dep.target.module, roots)
            ]
            channels = len(group.items[0].idxs)
            grouped = [item for item in group.items if _is_grouped(item.dep.target.module)]
            sets = max((item.dep.target.module.groups for item in grouped), default=1)
            held = next(filter(None, (self._held(item.dep.target) for item in group.items)), None)
            if not all(self._repeats(item, channels, sets) for item in grouped):
                held = held or "convolutions of different groups"
            found = Coupled(outs[0], tuple(outs[1:]), channels, sets, held, group)
            first = found.chosen([0])
            if held is None and self._together(group, first)[found.layer, OUT] != first:
                found.held = "a layer with several of them"
            yield found

    def _held(self, node: Any) -> str | None:
        """Why channels that pass a node cannot be removed."""
        kind, layer = node.type.name, node.module
        if kind not in _ALONE and not _is_of_pixels(node):
            return type(layer).__name__ if layer in self._names else kind.lower()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            alone = isinstance(layer, nn.Conv2d | nn.Linear) and f"{self._names[layer]}.weight" in self._prunable
            odd = kind == "DEPTHWISE_CONV" and layer.in_channels != layer.out_channels
            return None if alone and not odd else type(layer).__name__
        padding = getattr(node.grad_fn, "_saved_pad", ())
        return "a padding of channels" if any(padding[4:]) else None  # the last dimensions come first

    def _repeats(self, item: Any, channels: int, sets: int) -> bool:
        """Whether a grouped convolution has these channels and no others, in order: its groups can lose the same."""
        layer = item.dep.target.module
        every = layer.out_channels if self._side(item.dep) == OUT else layer.in_channels
        return layer.groups == sets and every == channels and list(item.idxs) == list(range(channels))

    def _side(self, dep: Any) -> str:
        """Whether a dependency removes outputs of its layer or inputs; where both are the same, outputs."""
        return OUT if self._graph.is_out_channel_pruning_fn(dep.handler) else IN

    def _check_traced(self) -> None:
        layers = [path for layer, path in self._names.items() if isinstance(layer, nn.Conv2d | nn.Linear)]
        modules = dict(self._model.named_modules())
        if missed := [path for path in layers if modules[path] not in self._graph.module2node]:
            raise ValueError(
                f"torch-pruning cannot trace {len(missed)} of {len(layers)} layers of {type(self._model).__name__}: "
                f"{listed(missed, 5)}"
            )


def require_torch_pruning() -> None:
    """Refuse to begin without the package.

    Raises:
        ValueError: how it is installed.
    """
    if importlib.util.find_spec("torch_pruning") is None:
        raise ValueError("kdprune shrink needs torch-pruning: pip install 'kdprune[shrink]'")


def _is_of_pixels(node: Any) -> bool:
    """Whether a slice is of rows or columns of N×C×H×W."""
    sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    return node.type.name == "SLICE" and len(sizes) == 4 and node.grad_fn._saved_dim in (2, 3)


def _is_grouped(layer: Any) -> bool:
    """Whether a layer is a convolution of several groups, unless each channel is one."""
    if not isinstance(layer, nn.Conv2d) or layer.groups == 1:
        return False
    return not layer.groups == layer.in_channels == layer.out_channels
