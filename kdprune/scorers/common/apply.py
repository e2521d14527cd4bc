"""From a scorer's name and a record to scores. Shapes: N samples, B samples of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.data.scores import Scores
from kdprune.messages import about, listed
from kdprune.scorers.common.observation import Observation
from kdprune.scorers.common.scorer import PER_SAMPLE, Declared

BLOCK = 2**18  # samples that a scorer sees at once, where their scores do not depend on each other


def declared(name: str) -> Declared:
    """What the scorer `name` says of itself.

    Raises:
        ValueError: an unknown scorer; one of another package that says nothing.
    """
    function = registry.get("scorers", name)
    if not isinstance(getattr(function, "declared", None), Declared):
        raise ValueError(f"scorer {name} is not declared: decorate it with kdprune.scorers.common.scorer.scorer")
    return function.declared


def bound(text: str, option: str = "--subset.scorer") -> tuple[Call, Callable[..., Any], dict[str, Any]]:
    """A scorer as text, checked against its parameters: the call, the function and the arguments.

    Raises:
        ValueError: an unknown scorer or parameter.
    """
    call = registry.read_call("scorers", text, option)
    function = registry.get("scorers", call.name)
    with about(option):
        return call, function, bind(call, function, "scorer", supplied=len(declared(call.name).reads))


def score(
    text: str,
    observation: Observation,
    *,
    seed: int = 0,
    difficulty: np.ndarray | None = None,
    option: str = "--subset.scorer",
) -> Scores:
    """Apply a scorer to a record.

    Args:
        text: its name, or name and arguments, such as `el2n(epoch=10)`.
        seed: of scorers that draw.
        difficulty: scores by another scorer, float32 N, higher is harder, for those that read them.
        option: that messages begin with.

    Raises:
        ValueError: an unknown scorer or argument; a record of another kind; no labels where they are needed; an epoch
            that was not recorded; scores that are NaN where values were recorded.
    """
    call, function, arguments = bound(text, option)
    says = declared(call.name)
    with about(option):
        _check(call.name, says, observation, difficulty)
        if says.needs in PER_SAMPLE:
            computed = _blockwise(function, says, observation, arguments, seed, difficulty)
        else:
            computed = _columns(function(*_values(says, observation, 0, None, seed, difficulty), **arguments))
        columns = {name: _array(values) for name, values in computed.items()}
        _check_scores(call.name, columns, observation.total)
    return Scores(
        columns.pop("score"), observation.labels, observation.fingerprint, str(call), says.hard, observation.classes,
        {**observation.origin, "seed": seed if "seed" in says.reads else None}, columns,
    )  # fmt: skip


def _check(name: str, says: Declared, observation: Observation, difficulty: np.ndarray | None) -> None:
    if says.needs not in ("nothing", observation.kind):
        raise ValueError(f"{name} needs a record of {says.needs}, and this one is of {observation.kind}")
    if says.labels and (unlabelled := int((observation.labels < 0).sum())):
        raise ValueError(f"{name} needs labels, and {unlabelled:,} of {observation.total:,} samples have none")
    if "difficulty" in says.reads and difficulty is None:
        raise ValueError(f"{name} starts from the scores of another scorer: give a file with --scores")
    if difficulty is not None and len(difficulty) != observation.total:
        raise ValueError(f"{len(difficulty):,} scores given for {observation.total:,} samples")


def _blockwise(
    function: Callable[..., Any],
    says: Declared,
    observation: Observation,
    arguments: Mapping[str, Any],
    seed: int,
    difficulty: np.ndarray | None,
) -> dict[str, Tensor]:
    blocks = []
    for start in range(0, observation.total, BLOCK):
        stop = min(observation.total, start + BLOCK)
        blocks.append(_columns(function(*_values(says, observation, start, stop, seed, difficulty), **arguments)))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _values(
    says: Declared, observation: Observation, start: int, stop: int | None, seed: int, difficulty: np.ndarray | None
) -> list[Any]:
    """What a scorer reads of the samples start … stop − 1, in its order; of all samples where `stop` is None."""
    last = observation.total if stop is None else stop
    beside: dict[str, Callable[[], Any]] = {
        "labels": lambda: torch.from_numpy(observation.labels[start:last]),
        "ids": lambda: torch.arange(start, last),
        "seed": lambda: seed,
        "difficulty": lambda: None if difficulty is None else torch.from_numpy(difficulty[start:last]),
    }
    return [
        beside[name]() if name in beside
        else observation.rows(name) if stop is None
        else observation.read(name, start, last)
        for name in says.reads
    ]  # fmt: skip


def _columns(result: Any) -> dict[str, Any]:
    return dict(result) if isinstance(result, Mapping) else {"score": result}


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.float().cpu() if isinstance(values, Tensor) else values, dtype=np.float32)


def _check_scores(name: str, columns: Mapping[str, np.ndarray], total: int) -> None:
    if "score" not in columns:
        raise ValueError(f"scorer {name} breaks its contract: it returns {listed(list(columns))}, and no score")
    for column, values in columns.items():
        if values.shape != (total,):
            raise ValueError(f"scorer {name} breaks its contract: {column} has shape {values.shape}, N is {total}")
