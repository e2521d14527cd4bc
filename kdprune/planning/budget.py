"""Budgets as they are typed: "2h", "90min", "3 gpu-hours", "5e7 passes". Imports nothing heavy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from kdprune.messages import shown, unknown

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "gpu-hours": 3600}
PASSES = "passes"
GPU_HOURS = "gpu-hours"
_WORDS = {
    "second": "s", "seconds": "s", "sec": "s", "m": "min", "minute": "min", "minutes": "min", "hour": "h",
    "hours": "h", "day": "d", "days": "d", "gpu-hour": GPU_HOURS, "gpuh": GPU_HOURS, "gpu-h": GPU_HOURS,
    "pass": PASSES,
}  # fmt: skip
_ALLOWED = "a time ('2h', '90min', '45s', '1d'), '3 gpu-hours', or sample passes ('5e7 passes')"


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        text: as it was given.
        amount: in seconds or passes.
        on_gpu: whether the seconds are those of a GPU.
    """

    text: str
    amount: float
    unit: Literal["seconds", "passes"]
    on_gpu: bool = False

    def words(self, amount: float) -> str:
        """An amount of this budget's unit, for a person."""
        if self.unit == PASSES:
            return f"{amount:.3g} passes" if amount >= 1e6 else f"{round(amount):,} passes"
        for name, size in (("h", 3600), ("min", 60)):
            if amount >= size:
                return f"{amount / size:.3g} {name}"
        return f"{amount:.2g} s"


def parse(text: str | None) -> Budget:
    """Read a budget.

    Raises:
        ValueError: none given, an unknown unit, an amount that is not positive.
    """
    if not text:
        raise ValueError(f"--budget: none given, allowed is {_ALLOWED}")
    match = re.fullmatch(r"\s*([-+]?[0-9._]*(?:[eE][-+]?[0-9]+)?)\s*([^\s\d.][^\d]*?)?\s*", text)
    number, unit = match.groups() if match else (text, None)
    try:
        amount = float(number.replace("_", ""))
    except ValueError:
        raise ValueError(f"--budget: {shown(text)} given, allowed is {_ALLOWED}") from None
    if unit is None:
        raise ValueError(f"--budget: {shown(text)} given without a unit, allowed is {_ALLOWED}")
    name = re.sub(r"[\s_]+", "-", unit.lower())
    name = _WORDS.get(name, name)
    if name not in (*SECONDS, PASSES):
        raise ValueError(f"--budget: {unknown('unit', unit, [*SECONDS, PASSES])}")
    if not (math.isfinite(amount) and amount > 0):
        raise ValueError(f"--budget: {shown(text)} given, allowed is {_ALLOWED}, more than 0")
    if name == PASSES:
        return Budget(text, amount, "passes")
    return Budget(text, amount * SECONDS[name], "seconds", on_gpu=name == GPU_HOURS)
