"""Modules of the user's own, beside timm's models: copied, tried on one batch, and known by what they are made of.

Shapes: N images, C classes, S side of an image.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from kdprune.models.hashing import weights_hash
from kdprune.models.spec import Built, InputSpec

_LIBRARIES = ("torch", "timm", "builtins")  # a change of their code is a change of version


def of_module(module: nn.Module, whose: str, num_classes: int, spec: InputSpec, classes: list[str]) -> Built:
    """A copy of a module, as if it had been built by name.

    Args:
        module: normalised images, float32 N×channels×S×S, to logits N×C. It is left as it is.
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
    info = {"module": _qualified(type(module))}
    return Built(own, type(module).__name__, num_classes, spec, classes, info, structure=structure(own))


@torch.no_grad()
def _try(module: nn.Module, whose: str, num_classes: int, spec: InputSpec) -> None:
    """Give the module two grey images, in evaluation mode, and look at the shape of what comes out."""
    training = [(part, part.training) for part in module.modules()]
    images = torch.zeros(2, spec.channels, spec.size, spec.size)
    shape, name = f"N×{spec.channels}×{spec.size}×{spec.size}", type(module).__name__
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


def structure(module: nn.Module) -> str:
    """SHA-256, hex, of what a module computes beside its weights: its parts, their settings, the code of their classes.

    Settings are attributes that are numbers, texts, or tuples and lists of them, and what a part says of itself
    (`extra_repr`). Of torch's and timm's classes the names are taken for the code. What lies elsewhere (functions that
    the code calls, tensors that are no buffers) is not seen.
    """
    digest = hashlib.sha256()
    classes: dict[type, None] = {}
    for path, part in module.named_modules():
        settings = {name: value for name, value in sorted(vars(part).items()) if name != "training" and _plain(value)}
        digest.update(json.dumps([path, _qualified(type(part)), part.extra_repr(), settings]).encode())
        classes |= dict.fromkeys(type(part).__mro__)
    for kind in classes:
        if kind.__module__.partition(".")[0] not in _LIBRARIES:
            for name, code in sorted(_codes(kind)):
                digest.update(f"{_qualified(kind)}.{name}".encode())
                digest.update(_text(code).encode())
    saved = module.state_dict()
    digest.update(weights_hash({name: x for name, x in module.named_buffers() if name not in saved}).encode())
    return digest.hexdigest()


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _codes(kind: type) -> Iterator[tuple[str, CodeType]]:
    """The methods of a class."""
    for name, value in vars(kind).items():
        if isinstance(value, FunctionType):
            yield name, value.__code__


def _text(code: CodeType) -> str:
    """What a function does, without where it stands in a file."""
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {[_constant(value) for value in code.co_consts]}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _text(value)
    # A set has another order in every process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
