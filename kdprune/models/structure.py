"""What a module of the user's own computes beside its weights, as a hash: parts, settings, code, tied weights."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping
from operator import itemgetter
from types import CellType, CodeType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdprune.models.hashing import weights_hash

_LIBRARIES = {"torch", "timm", "numpy", *sys.stdlib_module_names} - {"__main__"}  # other code is another version
_KEPT_ELSEWHERE = ("training", "_parameters", "_buffers", "_modules")  # weights have a hash of their own

Seen = dict[int, tuple[int, Any]]
"""Identity of a value → which one it was, and the value."""


def structure(module: nn.Module) -> str:
    """SHA-256, hex, of what a module computes beside its weights.

    That is: its parts and what they say of themselves (`extra_repr`), their attributes (numbers, texts, containers,
    tensors, functions with their closures, objects with attributes), hooks, the code and the attributes of their
    classes, and which names stand for one tensor. Of torch's and timm's functions and classes the names are taken for
    the code. What the code calls elsewhere is not seen.
    """
    digest = hashlib.sha256()
    # An attribute may hold them once more.
    own = (*module.modules(), *module.parameters(), *module.buffers())
    seen: Seen = {id(part): (index, part) for index, part in enumerate(own)}
    classes: dict[type, None] = {}
    for path, part in module.named_modules():
        digest.update(f"{path} {_qualified(type(part))} {part.extra_repr()}".encode())
        for name, value in sorted(vars(part).items()):
            if name not in _KEPT_ELSEWHERE:
                # Hooks are kept by handles, which are other numbers in every process.
                value = list(value.values()) if name.endswith("_hooks") and isinstance(value, Mapping) else value
                digest.update(f"{name}={_described(value, seen)}".encode())
        classes |= dict.fromkeys(type(part).__mro__)
    for kind in classes:
        if not _of_library(kind):
            digest.update(_class(kind, seen).encode())
    saved = module.state_dict()
    digest.update(weights_hash({name: x for name, x in module.named_buffers() if name not in saved}).encode())
    digest.update(repr(_shared(module)).encode())
    return digest.hexdigest()


def _shared(module: nn.Module) -> list[list[str]]:
    """Names that stand for one parameter: tied weights stay equal, and equal ones need not."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)


def _described(value: Any, seen: Seen) -> str:
    """A value as a text that is equal, in any process, for values that do the same.

    Args:
        seen: what was described before, by identity, so that circles end and nothing is described twice.
    """
    described = functools.partial(_described, seen=seen)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(described, value))})"
    if isinstance(value, set | frozenset):  # in no order, so none of its items may count on another one
        return f"set{sorted(_described(item, dict(seen)) for item in value)}"
    if isinstance(value, type):
        return _qualified(value)
    if id(value) in seen:
        return f"again {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value  # held, so that nothing else gets its identity
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{described(name)}: {described(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(described, value))}]"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, Tensor):
        return weights_hash({"": value})
    if isinstance(value, nn.Module):  # in a list or a closure, where torch does not see it
        return f"{_qualified(type(value))} {weights_hash(value.state_dict())} {described(vars(value))}"
    if isinstance(value, FunctionType):
        return _function(value, seen)
    if isinstance(value, MethodType):
        return f"{described(value.__func__)} of {described(value.__self__)}"
    if isinstance(value, functools.partial):
        return f"partial {described(value.func)} {described(value.args)} {described(value.keywords)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return _qualified(value)
    if _of_library(type(value)) and not isinstance(value, SimpleNamespace):  # loggers, locks, generators
        return _qualified(type(value))
    return f"{_class(type(value), seen)} {described(getattr(value, '__dict__', {}))}"


def _function(function: FunctionType, seen: Seen) -> str:
    if _of_library(function):
        return _qualified(function)
    cells = tuple(cell.cell_contents for cell in function.__closure__ or () if cell != CellType())
    return f"{_text(function.__code__)} {_described((cells, function.__defaults__, function.__kwdefaults__), seen)}"


def _class(kind: type, seen: Seen) -> str:
    """The methods of a class and its attributes."""
    members = sorted(_members(kind), key=itemgetter(0))
    return f"{_qualified(kind)} {[f'{name}={_described(value, seen)}' for name, value in members]}"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        if isinstance(value, staticmethod | classmethod):
            yield name, value.__func__
        elif isinstance(value, property):
            yield name, (value.fget, value.fset)
        elif isinstance(value, functools.cached_property):
            yield name, value.func
        elif isinstance(value, FunctionType) or not name.startswith("__"):
            yield name, value


def _of_library(what: Any) -> bool:
    return str(what.__module__).partition(".")[0] in _LIBRARIES


def _qualified(kind: Any) -> str:
    return f"{getattr(kind, '__module__', None)}.{kind.__qualname__}"


def _text(code: CodeType) -> str:
    """What a function does, without where it stands in a file."""
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {[_constant(value) for value in code.co_consts]}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _text(value)
    # A set has another order in every process.
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
