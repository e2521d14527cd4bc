"""Options of a command's own that have no effect: the same words and the same mechanism as for settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kdprune.config.conditions import Condition
from kdprune.config.effect import in_words

log = logging.getLogger("kdprune")


def warn_of_unused(options: Any, conditions: Mapping[str, tuple[Condition, ...]]) -> None:
    """Warn of options that are given and do not matter.

    Args:
        options: of the command, as they were parsed, with their `defaults`.
        conditions: by the option, with its dots, under which it matters, of all options.
    """
    unused = {}
    for name, of_option in conditions.items():
        if options[name] == options.defaults[name]:
            continue
        for condition in of_option:
            if not condition.holds(options):
                unused[name] = condition.otherwise.format(**vars(options))
                break
    for line in in_words(unused):
        log.warning(line)
