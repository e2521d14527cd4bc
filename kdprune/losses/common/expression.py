"""The language of losses: text or a YAML list, as a list of terms.

`kd`, `0.9*kd + 100*attention_transfer`, `dkd(alpha=1, beta=8) + logit_std(loss='dist')`; or a list of such texts and of
`{name: kd, weight: 1.0, params: {}}`. Values are Python literals; nothing is ever evaluated. Imports no torch.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdprune import registry

EXAMPLE = "0.5*kd + dkd(alpha=1, beta=8)"


@dataclass(frozen=True)
class Term:
    """`weight · name(**params)`."""

    weight: float
    name: str
    params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        registry.check_name("losses", self.name)
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if not number or not math.isfinite(self.weight) or self.weight < 0:
            raise ValueError(f"weight of loss {self.name!r} must be a finite number, not below 0, got {self.weight!r}")
        object.__setattr__(self, "weight", float(self.weight))


def parse(expression: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]) -> list[Term]:
    """The terms of a loss, in the order written.

    Raises:
        ValueError: bad syntax, an unknown loss or an impossible weight; the message quotes what was given.
    """
    if isinstance(expression, str):
        return _from_text(expression)
    if isinstance(expression, Mapping):
        return [_from_mapping(expression)]
    if not isinstance(expression, Sequence):
        raise ValueError(f"a loss is a text such as {EXAMPLE!r} or a list, got {expression!r}")
    terms = [term for part in expression for term in parse(part)]
    if not terms:
        raise ValueError("a list of losses may not be empty")
    return terms


def _from_text(text: str) -> list[Term]:
    try:
        # YAML's block texts have several lines
        node = ast.parse(text.replace("\n", " ").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad(text, getattr(error, "msg", None) or str(error)) from None
    nodes = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # a sum leans to the left
        nodes.append(node.right)
        node = node.left
    return [_term(text, part) for part in [node, *reversed(nodes)]]


def _term(text: str, node: ast.expr) -> Term:
    weight: Any = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight, node = _literal(text, "a weight", node.left), node.right
    if isinstance(node, ast.Name):
        return Term(weight, node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _bad(text, f"{ast.unparse(node)!r} is not a loss")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise _bad(text, f"parameters of {node.func.id!r} are written name=value")
    params = {str(keyword.arg): _literal(text, f"{keyword.arg!r}", keyword.value) for keyword in node.keywords}
    return Term(weight, node.func.id, params)


def _literal(text: str, what: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise _bad(text, f"{what} must be a plain value, not {ast.unparse(node)!r}") from None


def _from_mapping(mapping: Mapping[str, Any]) -> Term:
    allowed = ("name", "weight", "params")
    for key in mapping:
        if key not in allowed:
            raise ValueError(registry.unknown("key of a loss", key, allowed))
    if "name" not in mapping:
        raise ValueError(f"a loss needs a name, got {dict(mapping)!r}")
    params = mapping.get("params") or {}
    if not isinstance(params, Mapping):
        raise ValueError(f"params of loss {mapping['name']!r} must be a mapping of names to values, got {params!r}")
    return Term(mapping.get("weight", 1.0), mapping["name"], dict(params))


def _bad(text: str, why: str) -> ValueError:
    return ValueError(f"cannot read the loss {text!r}: {why} (write it like {EXAMPLE!r})")
