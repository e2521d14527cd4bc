"""What runs cost: a list of things made for each, so that what several runs share is counted once in a sum. Pure.

A run *alone* costs everything that it is made of: its teachers, what was recorded, the cached targets, the runs that
chose its settings, its own training. The sum over a study counts each of these things once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

TUNING = "tuning"
STAGES = ("teacher", "recording", "caching", TUNING, "α search", "training")


@dataclass(frozen=True)
class Item:
    """Something that was made.

    Attributes:
        stage: one of `STAGES`.
        id: equal where it is the same thing.
        seconds: of computing, without evaluation.
        passes: of samples through networks, forward or backward.
    """

    stage: str
    id: str
    seconds: float
    passes: float


@dataclass(frozen=True)
class Cost:
    """Of several things together.

    Attributes:
        seconds, passes: see `Item`.
        stages: seconds of each stage that took any.
    """

    seconds: float
    passes: float
    stages: Mapping[str, float]


def items_of(summary: Mapping[str, Any], values: Mapping[str, Any], caching: float = 0.0) -> list[Item]:
    """What a run was made of; parts that an early version did not write cost nothing.

    Args:
        values: its settings by dotted names.
        caching: seconds in which its cached targets were filled ahead of it.
    """
    cost, own = _mapping(summary.get("cost")), str(summary.get("key_hash"))
    scores = _mapping(_mapping(summary.get("inputs")).get("scores"))
    observed = json.dumps(_mapping(scores.get("origin")).get("observed"))
    items = _teachers(summary, _mapping(cost.get("teacher_training")))
    items += _targets(summary, values, caching, _mapping(cost.get("target_caching")))
    for name, stage, id in (
        ("observation", "recording", own if observed == "null" else observed),
        ("alpha_search", "α search", own),
        ("student_training", "training", own),
    ):
        part = _mapping(cost.get(name))
        items.append(Item(stage, f"{stage} {id}", _number(part.get("seconds")), _passes(part)))
    return [item for item in items if item.seconds or item.passes]


def as_tuning(items: Iterable[Item]) -> list[Item]:
    """What a run that tried a choice was made of: all of it is the cost of tuning, unless the final run shares it."""
    return [replace(item, stage=TUNING) for item in items]


def _targets(
    summary: Mapping[str, Any], values: Mapping[str, Any], seconds: float, cost: Mapping[str, Any]
) -> list[Item]:
    """Cached targets, a thing for each teacher: filled by the run (its seconds are those of the training then), or
    ahead of it.

    Found in a cache, they cost the passes that filling them for this run takes.
    """
    told = summary.get("teacher")
    weights = [_mapping(one).get("weights_hash") for one in told] if isinstance(told, list) else []
    passes = _passes(cost)
    if values.get("teacher.targets") == "cached" and weights:
        epochs = math.ceil(_number(summary.get("epochs")))
        views = min(int(_number(values.get("teacher.views"))) or epochs, epochs)
        there = views * _number(summary.get("kept"))
        # A run that found a part of them has asked for the rest alone, and itself fills no view that it does not meet.
        met = min(there, _number(summary.get("images_seen"))) if passes else there
        passes = max(passes, met * len(weights))
    key = _mapping(summary.get("key"))
    seen = [summary.get("subset_hash"), key.get("views"), _mapping(key.get("seeds")).get("data")]
    about = json.dumps([*seen, values.get("teacher.top_k")], sort_keys=True)
    share = 1 / max(1, len(weights))
    return [Item("caching", f"caching {weight} {about}", share * seconds, share * passes) for weight in weights]


def total(items: Iterable[Item]) -> Cost:
    """Of several things, each once."""
    once: dict[str, Item] = {}
    for item in items:
        before = once.get(item.id, item)
        # What a run found made took it less; and it is what it is for the final run, whatever else tried it.
        stage = item.stage if before.stage == TUNING else before.stage
        once[item.id] = Item(stage, item.id, max(item.seconds, before.seconds), max(item.passes, before.passes))
    stages = {stage: sum(item.seconds for item in once.values() if item.stage == stage) for stage in STAGES}
    return Cost(
        sum(item.seconds for item in once.values()),
        sum(item.passes for item in once.values()),
        {stage: seconds for stage, seconds in stages.items() if seconds},
    )


def _teachers(summary: Mapping[str, Any], whole: Mapping[str, Any]) -> list[Item]:
    """A thing for each teacher that was trained here. Their cost is known together, and goes by their own seconds."""
    told = summary.get("teacher")
    told = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    inputs = _mapping(summary.get("inputs")).get("teachers")
    runs = [_mapping(one).get("run") for one in inputs] if isinstance(inputs, list) else []
    found = []
    trained = [i for i, teacher in enumerate(told) if isinstance(teacher.get("training"), dict)]
    seconds = {i: _number(told[i]["training"].get("train_seconds")) for i in trained}
    for i in trained:
        share = seconds[i] / sum(seconds.values()) if sum(seconds.values()) else 1 / len(trained)
        run = runs[i] if i < len(runs) else None
        id = run or told[i].get("weights_hash") or summary.get("key_hash")
        found.append(Item("teacher", f"teacher {id}", share * _number(whole.get("seconds")), share * _passes(whole)))
    return found


def _passes(part: Mapping[str, Any]) -> float:
    return sum(_number(part.get(f"{name}_samples")) for name in ("forward", "backward", "teacher_forward"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
