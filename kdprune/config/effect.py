"""Settings without an effect: found, put into words, and put back, so that they are no part of what a run is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from kdprune.config.conditions import EVERYWHERE, Condition, conditions_of
from kdprune.config.settings import TRAININGS, Config, TrainConfig
from kdprune.config.situation import Situation, Training

_TYPED: ContextVar[frozenset[str] | None] = ContextVar("names of the settings that were typed", default=None)


@contextlib.contextmanager
def typed_only(names: frozenset[str] | None) -> Iterator[None]:
    """Inside of this, a setting without effect is spoken of only if it is one of these; None for all of them.

    A recipe is for training, and other commands take what they need of it. That is no mistake of whoever types them.
    """
    token = _TYPED.set(names)
    try:
        yield
    finally:
        _TYPED.reset(token)


def worth_saying(unused: Mapping[str, str]) -> dict[str, str]:
    """Of the settings without effect those that somebody has typed (see `typed_only`)."""
    typed = _TYPED.get()
    return {name: reason for name, reason in unused.items() if typed is None or name in typed}


@dataclass(frozen=True)
class Declared:
    """A setting as it is declared.

    Attributes:
        name: with dots.
        default: its value, if nothing is said.
        conditions: all under which it matters, those of its group first.
    """

    name: str
    default: Any
    conditions: tuple[Condition, ...]

    @property
    def place(self) -> tuple[str, str]:
        """Its group and its name in there."""
        group, _, name = self.name.rpartition(".")
        return group, name


def declared(kind: type = Config, group: str = "", of_group: tuple[Condition, ...] = ()) -> Iterator[Declared]:
    """All settings, with dotted names."""
    defaults = kind()
    for one in fields(kind):
        name, conditions = f"{group}{one.name}", (*of_group, *conditions_of(one))
        default = getattr(defaults, one.name)
        if is_dataclass(default):
            yield from declared(type(default), f"{name}.", conditions)
        else:
            yield Declared(name, default, conditions)


def without_effect(situation: Situation) -> dict[str, str]:
    """The settings that are given and do not matter, each with the reason, in the order of their declaration."""
    return {
        one.name: reason
        for one in declared()
        if _value(situation.config, one) != one.default and (reason := _reason(one, situation)) is not None
    }


def in_words(unused: Mapping[str, str]) -> list[str]:
    """A line for each reason: "--a, --b have no effect: …".

    Args:
        unused: reasons by the names of options, without dashes.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in unused.items():
        if f"--{name}" not in reason:  # what is the reason for others has done its work
            by_reason.setdefault(reason, []).append(f"--{name}")
    return [
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: {reason}"
        for reason, names in by_reason.items()
    ]


def normal_form(situation: Situation) -> Config:
    """A copy of the settings in which those without effect have their defaults."""
    config, unused = deepcopy(situation.config), without_effect(situation)
    for one in declared():
        if one.name in unused:
            group, name = one.place
            setattr(_group(config, group), name, deepcopy(one.default))
    return config


def normal_training(settings: TrainConfig, has_momentum: bool = True) -> TrainConfig:
    """The settings of one training alone: those that it does not read, since others may, have their defaults."""
    training = Training("train", settings, has_momentum=has_momentum)
    return normal_form(Situation(Config(train=settings), trainings=(training,))).train


def _reason(one: Declared, situation: Situation) -> str | None:
    """Why a setting does not matter; None if it does."""
    for condition in one.conditions:
        if not condition.of_training and not condition.holds(situation):
            return condition.otherwise.format(**situation.describe())
    group, name = one.place
    if group not in TRAININGS or EVERYWHERE in one.conditions:
        return None
    readers = list(situation.readers(group, name))
    if not readers:
        return "no training here reads it"
    for condition in one.conditions:
        if condition.of_training and not any(map(condition.holds, readers)):
            return condition.otherwise.format(settings=readers[0].settings)
    return None


def _value(config: Config, one: Declared) -> Any:
    group, name = one.place
    return getattr(_group(config, group), name)


def _group(config: Config, group: str) -> Any:
    place: Any = config
    for name in group.split(".") if group else ():
        place = getattr(place, name)
    return place
