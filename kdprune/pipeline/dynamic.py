"""Dynamic data pruning in a run: what its epochs hold, and what that makes of its length and its keep fraction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from kdprune import registry
from kdprune.calls import bind
from kdprune.config import Config
from kdprune.data.stream import Order, Stream
from kdprune.data.subset import Subset
from kdprune.messages import about
from kdprune.orders.common.plan import Dynamic, Plan
from kdprune.pipeline.session import Session
from kdprune.training.schedule import Budget, make_budget

OPTION = "--subset.dynamic"


def method(config: Config) -> type[Dynamic] | None:
    """The kind of order that a run asks for; None for a fixed subset."""
    if config.subset.dynamic is None:
        return None
    call = registry.read_call("orders", config.subset.dynamic, OPTION)
    return cast("type[Dynamic]", registry.get("orders", call.name))


def redraws(config: Config) -> bool:
    """Whether the keep fraction is that of an epoch, so that every sample may come to be in one."""
    kind = method(config)
    return kind is not None and kind.redraws


def needs_scores(config: Config) -> bool:
    """Whether the epochs go by the difficulty of the samples."""
    kind = method(config)
    if kind is None:
        return False
    call = registry.read_call("orders", config.subset.dynamic, OPTION)
    with about(OPTION):
        return kind.reads_scores(**bind(call, cast("Any", kind), "order", supplied=1))


def epoch_size(config: Config, subset: Subset) -> int:
    """Samples by which the budget counts epochs: of one epoch where each is drawn anew, else all kept ones."""
    if not redraws(config):
        return len(subset.ids)
    return min(len(subset.ids), max(1, round(config.subset.keep_fraction * subset.total)))


def keep_fraction(config: Config, subset: Subset) -> float:
    """These samples / all samples."""
    return epoch_size(config, subset) / subset.total


def make_length(config: Config, session: Session, subset: Subset) -> tuple[Budget, Dynamic | None]:
    """How long a training takes, and the dynamic order that says so, if there is one.

    Raises:
        ValueError: a dynamic order that cannot be; see `make_order`.
    """
    budget = make_budget(config.train, epoch_size(config, subset), subset.total)
    if config.subset.dynamic is None:
        return budget, None
    dynamic = cast("Dynamic", make_order(config, session, subset, budget))
    return replace(budget, begun=dynamic.epochs), dynamic


def make_order(config: Config, session: Session, subset: Subset, budget: Budget) -> Order:
    """Which samples each step of a training takes; to be made for each training, since it may go by its losses.

    Raises:
        ValueError: arguments that a dynamic order does not take, or scores that it lacks.
    """
    train, seed, role = config.train, config.seed_of("data"), config.seeds.role
    kind = method(config)
    if kind is None:
        return Stream(subset.ids, train.batch_size, seed, role)
    add_up = partial(session.accelerator.reduce, reduction="sum")
    size = epoch_size(config, subset)
    difficulty = session.difficulty(config.subset.hard)
    plan = Plan(subset.ids, train.batch_size, budget.steps, size, seed, role, difficulty, cast("Any", add_up))
    with about(OPTION):
        call = registry.read_call("orders", config.subset.dynamic, OPTION)
        arguments = bind(call, cast("Any", kind), "order", supplied=1)
        return cast("Order", cast("Any", kind)(plan, **arguments))
