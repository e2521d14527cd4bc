"""When a setting matters: said where it is declared, so that one walk over all fields finds what has no effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_KEY = "conditions"  # in the metadata of a dataclass field


@dataclass(frozen=True)
class Condition:
    """What must be so for a setting to matter.

    Attributes:
        holds: of the `Situation`; of the options, where a command has some of its own.
        otherwise: what is so where it does not hold, for the end of "--option has no effect: …". It may read what
            `holds` is given, as `{config.train.opt}`.
        of_training: it is asked of each `Training` that reads the setting, and one for which it holds is enough.
    """

    holds: Callable[[Any], bool]
    otherwise: str
    of_training: bool = False


def only(holds: Callable[[Any], bool], otherwise: str) -> Condition:
    """A condition of the whole situation: `only(lambda s: s.distils, "nothing is distilled")`."""
    return Condition(holds, otherwise)


def only_in(holds: Callable[[Any], bool], otherwise: str) -> Condition:
    """A condition of the training that reads a setting of `TrainConfig`."""
    return Condition(holds, otherwise, of_training=True)


EVERYWHERE = only(lambda s: True, "")
"""Of a setting of `TrainConfig` that is read where nothing is trained, too."""


def setting(default: Any, *conditions: Condition) -> Any:
    """A field of a settings class that matters under all of these conditions.

    Args:
        default: its value; or a class, such as `list` or another settings class, of which each instance gets one.
    """
    metadata = {_KEY: conditions}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def conditions_of(declared: Any) -> tuple[Condition, ...]:
    """The conditions of a dataclass field; none for one that always matters."""
    return tuple(declared.metadata.get(_KEY, ()))
