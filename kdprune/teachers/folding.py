"""BatchNorm folded into the convolution or linear layer before it.

In evaluation a BatchNorm is one multiplication and one addition for each channel, and those fit into the weight and
the bias of the layer that feeds it. Which layer feeds which BatchNorm is seen by watching one forward pass, so it holds
for any control flow in `forward`, with no symbolic trace that may fail. The modules stay where they are: a folded
BatchNorm becomes its activation (timm's BatchNormAct2d) or an identity under the same path.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Exact types: a subclass may compute something else.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def fold_batchnorms(network: nn.Module, example: Tensor) -> tuple[int, int]:
    """Fold in place every BatchNorm that alone reads the output of a convolution or linear layer.

    Others (before the first convolution, after a concatenation, …) stay as they are.

    Args:
        network: in evaluation mode, float32.
        example: one input, [N, C, H, W].

    Returns:
        How many BatchNorms were folded, and how many there were.
    """
    pairs = _adjacent(network, example)
    for layer, norm_path in pairs:
        norm = network.get_submodule(norm_path)
        assert isinstance(norm, _BatchNorm)
        _fold(layer, norm)
        parent, _, name = norm_path.rpartition(".")
        setattr(network.get_submodule(parent), name, getattr(norm, "act", None) or nn.Identity())
    left = sum(isinstance(module, _BatchNorm) for module in network.modules())
    return len(pairs), len(pairs) + left


def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    fuse: Any = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    scale = torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight
    shift = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    layer.weight, layer.bias = fuse(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, scale, shift
    )


def _adjacent(network: nn.Module, example: Tensor) -> list[tuple[nn.Module, str]]:
    """Layers with the path of the BatchNorm that alone reads their output, each run once and found at one place."""
    watch = _Watch()
    with watch.hooked(network), watch:
        network(example)
    places = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))

    def single(module: nn.Module) -> bool:
        return watch.calls[module] == 1 and places[id(module)] == 1

    paths = {module: path for path, module in network.named_modules()}
    return [
        (layer, paths[norm])
        for norm, (layer, output) in watch.fed_by.items()
        if single(norm) and single(layer) and watch.uses[id(output)] == 1
    ]


class _Watch(TorchDispatchMode):
    """Sees each tensor operation of a forward pass, and the modules around them.

    Attributes:
        fed_by: BatchNorm → the layer whose output it got, and that output.
        uses: id of a layer's output → how often it was read; the whole of a BatchNorm counts as one reading.
        calls: module → how often it ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fed_by: dict[nn.Module, tuple[nn.Module, Tensor]] = {}
        self.uses: Counter[int] = Counter()
        self.calls: Counter[nn.Module] = Counter()
        self._made: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the outputs, so that no id is used again
        self._convolutions: list[tuple[Tensor, Tensor]] = []  # (weight, output) since the last layer began
        self._in_norm = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._in_norm:
            self.uses.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._made)
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self._convolutions.append((args[1], output))
        return output

    @contextlib.contextmanager
    def hooked(self, network: nn.Module) -> Iterator[None]:
        handles = []
        for module in network.modules():
            if isinstance(module, _CONVS) or type(module) is nn.Linear:
                handles += [
                    module.register_forward_pre_hook(self._before_layer),
                    module.register_forward_hook(self._after_layer),
                ]
            elif type(module) in _NORMS and module.running_mean is not None:
                handles += [
                    module.register_forward_pre_hook(self._before_norm),
                    module.register_forward_hook(self._after_norm),
                ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_layer(self, layer: nn.Module, args: Any) -> None:
        self._convolutions.clear()

    def _after_layer(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self.calls[layer] += 1
        if type(layer) is nn.Linear:
            plain = output.ndim == 2  # with more dimensions, a BatchNorm takes another one for the channels
        else:
            # A subclass may standardise its weight or change its output on the way; then it is left alone.
            plain = len(self._convolutions) == 1 and _is_plain(layer, output, *self._convolutions[0])
        if plain:
            self._made[id(output)] = (layer, output)

    def _before_norm(self, norm: nn.Module, args: Any) -> None:
        self._in_norm = True
        if args and id(args[0]) in self._made:
            self.uses[id(args[0])] += 1
            self.fed_by[norm] = self._made[id(args[0])]

    def _after_norm(self, norm: nn.Module, args: Any, output: Tensor) -> None:
        self._in_norm = False
        self.calls[norm] += 1


def _is_plain(layer: nn.Module, output: Tensor, weight: Tensor, result: Tensor) -> bool:
    return weight is layer.weight and result is output
