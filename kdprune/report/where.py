"""Which runs are meant: a small language of comparisons, read by Python's own grammar and never evaluated as code.

keep_fraction < 0.5 and student.name == "resnet18"
seed in [0, 1, 2] and not (teacher.models == [])
"vit" in student.name or 0.1 <= test_top1 < 0.9
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from kdprune.messages import shown

MOST = 1000  # characters, so that brackets cannot nest beyond what Python bears
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_ALLOWED = "names, numbers, texts in quotes, lists, True, False, None, < <= > >= == != in, and, or, not, brackets"


class Where:
    """A condition on the values of a run.

    Args:
        text: as above.
        full_name: gives the name that a name in the text means, or raises ValueError.

    Raises:
        ValueError: no such condition, and what is allowed.
    """

    def __init__(self, text: str, full_name: Callable[[str], str]) -> None:
        self.text, self._full_name = text, full_name
        if len(text) > MOST:
            raise ValueError(f"--where: {len(text):,} characters given, allowed are {MOST:,}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            self._condition = self._read(tree)
        except (SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"--where: {shown(text)} is no condition; allowed are {_ALLOWED}") from None

    def __call__(self, values: dict[str, Any]) -> bool:
        """Whether a run is meant.

        Raises:
            ValueError: it compares a number with a text.
        """
        return bool(self._condition(values))

    def _read(self, node: ast.AST) -> Callable[[dict[str, Any]], Any]:
        match node:
            case ast.BoolOp(op=op, values=parts):
                every = isinstance(op, ast.And)
                read = [self._read(part) for part in parts]
                return lambda run: (all if every else any)(part(run) for part in read)
            case ast.UnaryOp(op=ast.Not(), operand=part):
                inner = self._read(part)
                return lambda run: not inner(run)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._comparison([left, *others], ops)
            case ast.Name() | ast.Attribute():
                name = self._full_name(ast.unparse(node))
                return lambda run: run.get(name)
            case ast.List() | ast.Tuple() | ast.Constant() | ast.UnaryOp():
                constant = _constant(node, self.text)
                return lambda _: constant
        raise _not_allowed(node, self.text)

    def _comparison(self, nodes: list[ast.expr], ops: list[ast.cmpop]) -> Callable[[dict[str, Any]], bool]:
        sides = [self._read(node) for node in nodes]
        if unknown := [op for op in ops if type(op) not in _COMPARISONS]:
            raise _not_allowed(unknown[0], self.text)
        compare = [_COMPARISONS[type(op)] for op in ops]
        orders = [isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE | ast.In | ast.NotIn) for op in ops]

        def holds(run: dict[str, Any]) -> bool:
            found = [side(run) for side in sides]
            for n, test in enumerate(compare):
                left, right = found[n], found[n + 1]
                if orders[n] and (right is None or (left is None and not isinstance(right, list))):
                    return False  # a run that has no such value is not meant
                try:
                    if not test(left, right):
                        return False
                except TypeError:
                    raise ValueError(
                        f"--where: {shown(left)} and {shown(right)} cannot be compared in {shown(self.text)}"
                    ) from None
            return True

        return holds


def _constant(node: ast.AST, text: str) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_constant(part, text) for part in parts]
    raise _not_allowed(node, text)


def _not_allowed(node: ast.AST, text: str) -> ValueError:
    part = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__.lower()
    return ValueError(f"--where: {shown(part)} in {shown(text)} is not allowed; allowed are {_ALLOWED}")
