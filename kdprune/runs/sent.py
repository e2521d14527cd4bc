"""Calls and results as they go from one process to another: tensors as arrays, of which only what is seen is sent.

A tensor that is pickled takes all of its storage along, of which it may be a small part, or a handle to memory that the
other process shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class _Sent:
    """A tensor on its way."""

    values: np.ndarray


def packed(value: Any) -> Any:
    """The value with its tensors as arrays: in tuples, lists and partial calls."""
    return _through(value, Tensor, lambda tensor: _Sent(tensor.detach().cpu().numpy()))


def unpacked(value: Any) -> Any:
    """As it was; the tensors lie in memory of their own, which torch has aligned, so that products have their bits."""
    return _through(value, _Sent, lambda sent: torch.tensor(sent.values))


def _through(value: Any, kind: type, change: Any) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, partial):
        arguments = [_through(part, kind, change) for part in value.args]
        return partial(value.func, *arguments, **{n: _through(v, kind, change) for n, v in value.keywords.items()})
    if type(value) in (tuple, list):
        return type(value)(_through(part, kind, change) for part in value)
    return value
