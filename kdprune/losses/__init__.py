"""Distillation losses: each is a file, found by its name; `Loss` is any weighted sum of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdprune.losses.common.base import DistillLoss, LossInput
    from kdprune.losses.common.loss import Loss

PLUGIN = "loss"
_MODULES = {"DistillLoss": "common.base", "LossInput": "common.base", "Loss": "common.loss"}

__all__ = ["DistillLoss", "Loss", "LossInput"]


def __getattr__(name: str) -> Any:
    """Import what is asked for; the names of losses are known without importing torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
