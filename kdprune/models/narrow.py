"""Networks some of whose layers are narrower than their model's name says: what channel pruning leaves.

The widths of such a network are the shapes of the tensors that differ from the named model's. timm builds the model by
its name, and its layers are then given these shapes. Anybody may have written the widths: they may only shrink what a
convolution, a linear layer or a BatchNorm holds, and layers that do not fit each other are found before anything takes
memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdprune.data.size import Size
from kdprune.messages import did_you_mean, shown
from kdprune.models.create import create, head_names

Shape = tuple[int, ...]
Widths = Mapping[str, Shape]

LAYERS = (nn.Conv2d, nn.Linear, _BatchNorm)
KINDS = ("convolutions", "linear layers", "BatchNorm")
_VECTORS = {"bias", "running_mean", "running_var"}  # one value for each output


def widths_of(state: Mapping[str, Tensor], full: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes of the tensors that differ from those of the same names in `full`."""
    return {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.shape != full[name].shape}


def create_narrow(
    name: str, num_classes: int, in_chans: int | None, size: Size | None, model_args: dict[str, Any], widths: Widths
) -> tuple[nn.Module, dict[str, Shape]]:
    """A timm model of other widths, in no more memory than these take; only its classifier has values.

    Args:
        name, num_classes, in_chans, size, model_args: as for `create`.
        widths: of the network with any number of classes; the classifier gets `num_classes` outputs.

    Returns:
        The network on the CPU, and its own widths.

    Raises:
        ValueError: as `create`, `check_widths` and `narrow`; a buffer that no file holds, whose values would be lost.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = create(name, num_classes, in_chans, size, False, model_args)
    full, heads = model.state_dict(), head_names(model)
    widths = {
        one: (full[one].shape[0], *shape[1:]) if one.startswith(heads) and one in full else tuple(shape)
        for one, shape in widths.items()
    }
    check_widths(model, widths)
    narrow(model, widths)
    if lost := [buffer for buffer, _ in model.named_buffers() if buffer not in full]:
        raise ValueError(f"{name} has one width: {shown(lost[0])} is computed for it, and stored nowhere")
    model.to_empty(device="cpu")
    for head in _heads(model).values():
        for layer in head.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()
    return model, widths_of(model.state_dict(), full)


def check_widths(model: nn.Module, widths: Widths) -> None:
    """Refuse shapes that layers of a model cannot shrink to.

    Args:
        model: with the widths of its name.

    Raises:
        ValueError: a tensor that the model does not have, or not in a layer whose width can change; another number of
            dimensions; a dimension below 1 or above the model's; a classifier of other outputs.
    """
    full = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    layers = {path for path, layer in model.named_modules() if isinstance(layer, LAYERS)}
    heads = head_names(model)
    for name, shape in widths.items():
        if name not in full:
            raise ValueError(f"its widths name {shown(name)}, which is no tensor of it{did_you_mean(name, full)}")
        if name.rpartition(".")[0] not in layers:
            raise ValueError(f"the width of {shown(name)} is given, allowed are those of {', '.join(KINDS)}")
        fits = len(shape) == len(full[name]) and all(1 <= n <= most for n, most in zip(shape, full[name], strict=True))
        if not fits:
            raise ValueError(
                f"the width of {shown(name)} is {shown(list(shape))}, allowed are shapes up to {full[name]}, none 0"
            )
        if name.startswith(heads) and shape[0] != full[name][0]:
            raise ValueError(f"the width of {shown(name)} is of {shape[0]} classes, and the model has {full[name][0]}")


def narrow(model: nn.Module, widths: Widths) -> None:
    """Give the layers of a model other shapes, in place; the values of these layers are undefined afterwards.

    A convolution whose channels are each a group of their own stays one; any other keeps its number of groups.

    Args:
        model: on any device.
        widths: those that `check_widths` accepts.

    Raises:
        ValueError: a layer whose tensors do not fit each other.
    """
    before = {path: head.in_features for path, head in _heads(model).items() if isinstance(head, nn.Linear)}
    for path, layer in model.named_modules():
        if not isinstance(layer, LAYERS):
            continue
        own = {key: tensor for key, tensor in {**layer._parameters, **layer._buffers}.items() if tensor is not None}
        shapes = {key: tuple(widths.get(f"{path}.{key}", tensor.shape)) for key, tensor in own.items()}
        if any(shapes[key] != tensor.shape for key, tensor in own.items()):
            _set_attributes(layer, path, shapes)
            for key, tensor in own.items():
                new = tensor.detach().new_empty(shapes[key])
                keeps = isinstance(tensor, nn.Parameter)
                setattr(layer, key, nn.Parameter(new, tensor.requires_grad) if keeps else new)
    for path, features in before.items():
        _say_features(model, features, _heads(model)[path].in_features)


def check_runs(model: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Refuse a network on the meta device whose layers do not take each other's outputs.

    Args:
        input_shape: channels, height and width of an image.

    Raises:
        ValueError: with the first line of torch's own message.
    """
    training = model.training
    try:
        with torch.no_grad(), torch.device("meta"):
            model.eval()(torch.empty(1, *input_shape))
    except Exception as error:  # whatever a network of such widths runs into
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"its widths do not fit each other: {first}") from None
    finally:
        model.train(training)


def _heads(model: nn.Module) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {name: modules[name] for name in (prefix.removesuffix(".") for prefix in head_names(model))}


def _set_attributes(layer: nn.Module, path: str, shapes: Mapping[str, Shape]) -> None:
    """Set what a layer says of its widths, once its tensors are known to agree."""
    weight = shapes.get("weight", shapes.get("running_mean", ()))
    if odd := sorted(key for key in shapes.keys() & _VECTORS if shapes[key] != weight[:1]):
        raise ValueError(
            f"its widths do not fit each other: {path}.{odd[0]} has {shapes[odd[0]][0]} values for {weight[0]} outputs"
        )
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        groups = weight[0] if depthwise else layer.groups
        if weight[0] % groups or weight[2:] != tuple(layer.kernel_size):
            raise ValueError(
                f"the width of '{path}.weight' is {list(weight)}, allowed are outputs in {groups} equal groups, and "
                f"kernels of {list(layer.kernel_size)}"
            )
        layer.groups, layer.in_channels, layer.out_channels = groups, weight[1] * groups, weight[0]
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = weight[1], weight[0]
    elif isinstance(layer, _BatchNorm):
        layer.num_features = weight[0]


def _say_features(model: Any, before: int, after: int) -> None:
    """timm's `reset_classifier` goes by what the model says of its features."""
    for name in ("num_features", "head_hidden_size"):
        if getattr(model, name, None) == before:
            setattr(model, name, after)
