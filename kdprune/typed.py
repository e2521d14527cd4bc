"""Values of settings as the types that their dataclasses declare, with the same judgement wherever they come from.

The command line, a YAML file and a Python dict spell one value differently: PyYAML reads `1e-3` as text, and
`--train.checkpoint_every 1` is a number. So a number may stand as text and text as a number; nothing else is converted.
Imports nothing heavy.
"""

from __future__ import annotations

import numbers
import os
import sys
import types
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kdprune.messages import wrong_value


def typed(option: str, value: Any, kind: Any) -> Any:
    """`value` as the type annotation `kind` has it.

    Raises:
        ValueError: it is of another type; the message names the option.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)  # numpy's whole numbers are none of Python's
    elif isinstance(value, numbers.Real) and not isinstance(value, bool | int | float):
        value = float(value)
    # An exact match goes first, so that a union of text and number keeps what was given.
    for convert in (False, True):
        try:
            return _as(kind, value, convert)
        except TypeError:
            continue
    raise ValueError(wrong_value(option, _written(value), kind))


@lru_cache(maxsize=64)
def types_of(settings: type) -> dict[str, Any]:
    """The annotations of a dataclass, resolved."""
    return get_type_hints(settings)


def _as(kind: Any, value: Any, convert: bool) -> Any:
    """The value as `kind`; `TypeError` where it is of another type."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _as_first(parts, value, convert)
    if origin is Literal:
        fits = any(type(value) is type(choice) and value == choice for choice in parts)
    elif origin is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_as(parts[0], item, convert) for item in value]
    elif kind is float:
        # A whole number beyond the largest float would overflow where it is used.
        fits = isinstance(value, float) or (_is_whole(value) and abs(value) <= sys.float_info.max)
    elif kind is int:
        fits = _is_whole(value)
    else:
        fits = isinstance(value, origin or kind)
    if fits:
        return value
    if convert:
        return _converted(kind, value)
    raise TypeError


def _as_first(kinds: tuple[Any, ...], value: Any, convert: bool) -> Any:
    for kind in kinds:
        try:
            return _as(kind, value, convert)
        except TypeError:
            continue
    raise TypeError


def _converted(kind: Any, value: Any) -> Any:
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            raise TypeError from None
    if kind is str and (isinstance(value, float) or _is_whole(value)):
        return str(value)
    raise TypeError


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _written(value: Any) -> str:
    """A value as it would be typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
