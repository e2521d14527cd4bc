"""The language of losses: text or a YAML list, as a list of terms.

`kd`, `0.9*kd + 100*attention_transfer`, `dkd(alpha=1, beta=8) + logit_std(loss='dist')`; or a list of such texts and of
`{name: kd, weight: 1.0, params: {}}`. Values are Python literals; nothing is ever evaluated. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kdprune import calls, registry
from kdprune.messages import about, shown, unknown

OPTION = "--distill.loss"
Expression: TypeAlias = "str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]"
EXAMPLE = "0.5*kd + dkd(alpha=1, beta=8)"


@dataclass(frozen=True)
class Term:
    """`weight · name(**params)`."""

    weight: float
    name: str
    params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry.check_name("losses", self.name)
        if not _is_weight(self.weight):
            raise ValueError(
                f"weight of loss {self.name!r} must be a finite number, not below 0, got {shown(self.weight)}"
            )
        object.__setattr__(self, "weight", float(self.weight))


def parse(expression: Expression) -> list[Term]:
    """The terms of a loss, in the order written.

    Raises:
        ValueError: bad syntax, an unknown loss or an impossible weight; the message quotes what was given.
    """
    with about(OPTION):
        return _parse(expression)


def _parse(expression: object, nested: int = 0) -> list[Term]:
    if isinstance(expression, str):
        return [_from_product(expression, product) for product in calls.parse(expression)]
    if isinstance(expression, Mapping):
        return [_from_mapping(expression)]
    if not isinstance(expression, Sequence) or nested > calls.DEEPEST:
        raise ValueError(f"a loss is a text such as {EXAMPLE!r} or a list, got {shown(expression)}")
    terms = [term for part in expression for term in _parse(part, nested + 1)]
    if not terms:
        raise ValueError("a list of losses may not be empty")
    return terms


def _from_product(text: str, product: calls.Product) -> Term:
    *weight, call = product
    if not isinstance(call, calls.Call) or len(weight) > 1 or any(isinstance(w, calls.Call) for w in weight):
        raise ValueError(f"cannot read {shown(text)}: a term is NAME or WEIGHT*NAME (write it like {EXAMPLE!r})")
    if call.args:
        raise ValueError(f"cannot read {shown(text)}: parameters of {call.name!r} are written name=value")
    return Term(weight[0] if weight else 1.0, call.name, call.kwargs)  # type: ignore[arg-type]


def _from_mapping(mapping: Mapping[str, Any]) -> Term:
    allowed = ("name", "weight", "params")
    for key in mapping:
        if key not in allowed:
            raise ValueError(unknown("key of a loss", key, allowed))
    if not isinstance(mapping.get("name"), str):
        raise ValueError(f"a loss needs a name, got {shown(dict(mapping))}")
    params = mapping.get("params") or {}
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise ValueError(
            f"params of loss {mapping['name']!r} must be a mapping of names to values, got {shown(params)}"
        )
    return Term(mapping.get("weight", 1.0), mapping["name"], dict(params))


def _is_weight(value: object) -> bool:
    try:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
    except OverflowError:  # a whole number that no float holds
        return False
