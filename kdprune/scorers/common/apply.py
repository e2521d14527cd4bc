"""From a scorer's name and a record to scores. Shapes: N samples, B samples of a block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.data.scores import Scores
from kdprune.geometry.rows import Mapper
from kdprune.messages import about, counted, listed
from kdprune.scorers.common.observation import Observation
from kdprune.scorers.common.scorer import ALWAYS, Declared

_log = logging.getLogger("kdprune")

VALUES = 2**22  # recorded numbers that a scorer is given at once, where samples do not depend on each other


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
    mapper: Mapper = map,
    option: str = "--subset.scorer",
) -> Scores:
    """Apply a scorer to a record.

    Args:
        text: its name, or name and arguments, such as `el2n(epoch=10)`.
        seed: of scorers that draw.
        difficulty: scores by another scorer, float32 N, higher is harder, for those that read them.
        mapper: `map`, or workers that do the same, for scorers that can be divided among them.
        option: that messages begin with.

    Raises:
        ValueError: an unknown scorer or argument; a record of another kind; no labels where they are needed; an epoch
            that was not recorded; scores that are NaN where all values were recorded.
    """
    call, function, arguments = bound(text, option)
    says = declared(call.name)
    with about(option):
        _check(call.name, says, observation, difficulty)
        if says.needs == "gradients" and observation.origin.get("epoch") == 0:
            _log.warning(
                "gradients at initialisation order samples nearly by the norm of the input, and keeping the highest is "
                "worse than random (arXiv 2303.14753): record them after a few epochs"
            )
        with about(call.name):
            found = [
                compute(function, says, member, arguments, seed=seed, difficulty=difficulty, mapper=mapper)
                for member in observation.members or [observation]
            ]
    columns = found[0] if len(found) == 1 else {name: np.mean([one[name] for one in found], 0) for name in found[0]}
    return Scores(
        columns.pop("score"), observation.labels, observation.fingerprint, str(call), says.hard, observation.classes,
        {**observation.origin, "seed": seed if "seed" in says.reads else None}, columns,
    )  # fmt: skip


def _check(name: str, says: Declared, observation: Observation, difficulty: np.ndarray | None) -> None:
    if says.needs not in ("nothing", observation.kind):
        raise ValueError(f"{name} needs a record of {says.needs}, and this one is of {observation.kind}")
    if says.labels and (unlabelled := int((observation.labels < 0).sum())):
        raise ValueError(
            f"{name} needs labels, and there is none for {unlabelled:,} of {counted(observation.total, 'sample')}"
        )
    if "difficulty" in says.reads and difficulty is None:
        raise ValueError(f"{name} starts from the scores of another scorer: give a file with --scores")
    if difficulty is not None and len(difficulty) != observation.total:
        given, total = counted(len(difficulty), "score"), counted(observation.total, "sample")
        raise ValueError(f"{given} given for {total}")


def compute(
    function: Callable[..., Any],
    says: Declared,
    observation: Observation,
    arguments: Mapping[str, Any],
    *,
    seed: int = 0,
    difficulty: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    mapper: Mapper = map,
    block: int | None = None,
) -> dict[str, np.ndarray]:
    """The columns that a scorer computes, float32 N, of which one is `score`.

    Args:
        ids: of the samples, int64 N (default: their positions).
        mapper: see `score`.
        block: samples that it sees at once, where their scores do not depend on each other (default: as many as VALUES
            numbers are recorded of).

    Raises:
        ValueError: the scorer's own; it breaks its contract.
    """
    total, parts = observation.total, []
    beside = {"ids": ids, "seed": seed, "difficulty": difficulty, "mapper": mapper}
    if not says.per_sample:
        block = total
    elif block is None:
        one = sum(observation.read(name, 0, 1).numel() for name in says.reads if name not in ALWAYS)
        block = max(1, VALUES // max(1, one))
    for start in range(0, total, block):
        stop = min(total, start + block)
        values = _values(says, observation, slice(start, stop), beside)
        result = function(*values, **arguments)
        columns = result if isinstance(result, Mapping) else {"score": result}
        part = {name: _array(column) for name, column in columns.items()}
        _check_columns(part, stop - start)
        if says.per_sample:
            _check_nan(part["score"], values, says, start)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _values(says: Declared, observation: Observation, where: slice, beside: Mapping[str, Any]) -> list[Any]:
    """What a scorer reads of some samples, in its order; features as rows of all, which it takes slices of."""
    values: list[Any] = []
    for name in says.reads:
        if name == "features":
            values.append(observation.rows(name))
        elif name == "labels":
            values.append(torch.from_numpy(observation.labels[where].copy()))
        elif name == "classes":
            values.append(len(observation.classes))
        elif name in ("seed", "mapper"):
            values.append(beside[name])
        elif name == "ids" and beside["ids"] is None:
            values.append(torch.arange(where.start, where.stop))
        elif name in beside:
            values.append(torch.from_numpy(beside[name][where].copy()))
        else:
            values.append(observation.read(name, where.start, where.stop))
    return values


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.float().cpu() if isinstance(values, Tensor) else values, dtype=np.float32)


def _check_columns(columns: Mapping[str, np.ndarray], given: int) -> None:
    if "score" not in columns:
        raise ValueError(f"it breaks its contract: it returns {listed(list(columns))}, and no score")
    for column, values in columns.items():
        if values.shape != (given,):
            raise ValueError(f"it breaks its contract: {column} has shape {values.shape} for {given:,} samples")


def _check_nan(score_N: np.ndarray, values: list[Any], says: Declared, start: int) -> None:
    """Refuse a score of NaN for a sample whose every recorded value is a number: it would count as not observed."""
    wrong_N = np.isnan(score_N)
    if not wrong_N.any():
        return
    for name, value in zip(says.reads, values, strict=True):
        if name not in ALWAYS:
            wrong_N &= ~_has_nan(name, value, says.needs).numpy()
    if wrong_N.any():
        ids = start + np.flatnonzero(wrong_N)
        raise ValueError(
            f"the score of {counted(len(ids), 'sample')} is NaN, though all values were recorded: {listed(ids)}"
        )


def _has_nan(name: str, recorded: Tensor, kind: str) -> Tensor:
    """Whether a sample was not observed at some time, bool N."""
    if kind == "dynamics":  # R×E×N, and there is no prediction before the first epoch
        return recorded[:, 1 if name == "kl" else 0 :].isnan().any(0).any(0)
    return recorded.isnan().reshape(len(recorded), -1).any(1)


def check_fit(
    text: str, observation: Observation, difficulty: np.ndarray | None = None, option: str = "--subset.scorer"
) -> None:
    """Refuse a scorer that a record does not serve, before anything is computed (see `score`)."""
    call = bound(text, option)[0]
    with about(option):
        _check(call.name, declared(call.name), observation, difficulty)
