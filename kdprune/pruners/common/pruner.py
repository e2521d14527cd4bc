"""What a pruner says of itself.

A pruner is a function of a `Network` that returns a score for each of its prunable weights: a mapping from tensor names
to floating-point tensors in the weights' shapes. The highest scores are kept. Its further parameters are what a user
writes in brackets, as in `snip(per_class=20)`. It decides nothing: how many weights are kept, in the whole network or
in each layer, and in how many rounds, is the caller's matter (`kdprune.pruners.common.prune`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.messages import about, shown
from kdprune.pruners.common.network import Network
from kdprune.registry import register

Scores = Mapping[str, Tensor]
Pruner = Callable[..., Scores]

F = TypeVar("F", bound=Pruner)
MOST_ROUNDS = 10_000


@dataclass(frozen=True)
class Declared:
    """What a pruner says of itself.

    Attributes:
        labels: whether it needs samples with labels; one that does not needs no data at all.
        rounds: in how many rounds it prunes, unless a user writes `rounds=`.
        paper: authors, year and arXiv number.
        cost: of one round, in words.
    """

    labels: bool
    rounds: int
    paper: str
    cost: str


class Bound(NamedTuple):
    """A pruner with its arguments.

    Attributes:
        function: from a network to scores.
        says: what the pruner says of itself.
        rounds: in how many it prunes.
        written: name and all arguments.
    """

    function: Callable[[Network], Scores]
    says: Declared
    rounds: int
    written: str


def pruner(name: str, *, labels: bool, paper: str, cost: str, rounds: int = 1) -> Callable[[F], F]:
    """Function decorator: register a pruner with what it says of itself (see `Declared`)."""

    def keep(function: F) -> F:
        function.declared = Declared(labels, rounds, paper, cost)  # type: ignore[attr-defined]
        return register("pruners", name)(function)

    return keep


def bound(text: str, option: str = "--student.pruner") -> Bound:
    """A pruner as it was written, `magnitude` or `snip(per_class=20, rounds=5)`.

    Raises:
        ValueError: an unknown name or argument, or a number of rounds that is none; naming the option.
    """
    call = registry.read_call("pruners", text, option)
    with about(option):
        return bound_to(registry.get("pruners", call.name), call)


def bound_to(function: Any, call: Call) -> Bound:
    """A declared function with the arguments of a call.

    Raises:
        ValueError: it is not declared; an unknown argument; a number of rounds that is none.
    """
    says = getattr(function, "declared", None)
    if not isinstance(says, Declared):
        raise ValueError(f"{call.name} is not declared: decorate it with kdprune.pruners.common.pruner.pruner")
    given = dict(call.kwargs)
    rounds = given.pop("rounds", says.rounds)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"rounds={shown(rounds)} given, allowed is a whole number from 1 to {MOST_ROUNDS:,}")
    arguments = bind(Call(call.name, call.args, given), function, "pruner", supplied=1)
    written = str(Call(call.name, (), {**dict(sorted(arguments.items())), "rounds": rounds}))
    return Bound(partial(function, **arguments), says, rounds, written)
