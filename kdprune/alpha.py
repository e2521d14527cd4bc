"""The weight α of the distillation term, as a function of the keep fraction and of the progress of training.

Ben-Baruch et al. 2025 (arXiv 2403.07854) find that the best α grows as less data is kept, near 1 at a tenth of the
data; they publish no formula, so the policies here are families to choose from. Imports nothing heavy.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdprune.registry import unknown


def constant(keep_fraction: float, alpha: float) -> float:
    """The same α whatever is kept."""
    return alpha


def linear(keep_fraction: float, a_low: float, a_high: float) -> float:
    """From `a_low` where nothing is kept to `a_high` where all is."""
    return a_low + (a_high - a_low) * keep_fraction


def power(keep_fraction: float, a_low: float, a_high: float, p: float = 1.0) -> float:
    """Like `linear`, bent: p < 1 falls early, p > 1 late."""
    return a_low + (a_high - a_low) * keep_fraction**p


def table(keep_fraction: float, points: Sequence[Sequence[float]]) -> float:
    """Linear between the points [keep fraction, α], constant outside them."""
    points = sorted((float(f), float(a)) for f, a in points)
    if keep_fraction <= points[0][0]:
        return points[0][1]
    for (f0, a0), (f1, a1) in itertools.pairwise(points):
        if keep_fraction <= f1:
            return a0 + (a1 - a0) * (keep_fraction - f0) / (f1 - f0)
    return points[-1][1]


# [keep fraction, α]: the best of the measured grid {0.5, 0.9, 1} for each keep fraction; docs/alpha.md has the numbers.
MEASURED = ((0.1, 1.0), (0.5, 1.0))


def auto(keep_fraction: float) -> float:
    """kdprune's own measurements (CIFAR-10, ResNet-8 from ResNet-20): 1 up to a half of the data; nothing is measured
    beyond, where it stays at the last point."""
    return table(keep_fraction, MEASURED)


def warmup(progress: float, until: float) -> float:
    """Grows linearly from 0 to 1 over the first `until` of training."""
    return min(1.0, progress / until)


def cosine(progress: float, end: float = 0.0) -> float:
    """Falls from 1 to `end` along half a cosine."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


def late(progress: float, start: float) -> float:
    """1, then 0 from `start` on: the last part of training sees hard labels only."""
    return 1.0 if progress < start else 0.0


_POLICIES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "power": power,
    "table": table,
    "auto": auto,
}
_SCHEDULES: dict[str, Callable[..., float]] = {"warmup": warmup, "cosine": cosine, "late": late}


@dataclass(frozen=True)
class Alpha:
    """A policy over the keep fraction, times schedules over training."""

    text: str
    policy: Callable[..., float]
    arguments: tuple[Any, ...]
    schedules: tuple[tuple[Callable[..., float], tuple[Any, ...]], ...] = field(default=())

    def at(self, keep_fraction: float, progress: float | None = None) -> float:
        """α for a keep fraction in (0, 1] and, if there are schedules, a progress in [0, 1] (None: without them).

        Raises:
            ValueError: the policy gives an α outside [0, 1].
        """
        alpha = self.policy(keep_fraction, *self.arguments)
        if not 0 <= alpha <= 1:
            raise ValueError(
                f"--distill.alpha: {self.text!r} gives α = {alpha:g} at keep fraction {keep_fraction:g}, "
                "allowed is [0, 1]"
            )
        if progress is not None:
            for schedule, arguments in self.schedules:
                alpha *= schedule(progress, *arguments)
        return alpha


@dataclass(frozen=True)
class Search:
    """α (and, if asked, T) is to be found by successive halving before the training.

    Attributes:
        alphas: candidates.
        temperatures: candidates; empty: the run's.
    """

    alphas: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    temperatures: tuple[float, ...] = ()


def search(value: float | str) -> Search | None:
    """What `search`, `search([α, …])` or `search([α, …], [T, …])` asks for; None if `value` is anything else.

    Raises:
        ValueError: wrong candidates.
    """
    match = re.fullmatch(r"\s*search\s*(?:\((.*)\))?\s*", str(value))
    if match is None:
        return None
    try:
        lists = ast.literal_eval(f"({match[1]},)") if match[1] and match[1].strip() else ()
        wanted = Search(*(tuple(float(x) for x in candidates) for candidates in lists))
        fits = wanted.alphas and all(0 <= a <= 1 for a in wanted.alphas) and all(t > 0 for t in wanted.temperatures)
    except (SyntaxError, ValueError, TypeError):
        fits = False
    if not fits:
        raise ValueError(
            f"--distill.alpha: {value!r} given, allowed are search, search([α, …]) with α in [0, 1], or "
            "search([α, …], [T, …]) with T > 0"
        )
    return wanted


def parse(value: float | str) -> Alpha:
    """Read `--distill.alpha` (anything but a search).

    Raises:
        ValueError: unknown policy or schedule (with the nearest known one), wrong arguments, a number outside [0, 1].
    """
    text = str(value)
    policy_text, *schedule_texts = (part.strip() for part in text.split("*"))
    schedules = tuple(_call(part, _SCHEDULES, text) for part in schedule_texts)
    try:
        number = float(policy_text)
    except ValueError:
        return Alpha(text, *_call(policy_text, _POLICIES, text), schedules)
    if not 0 <= number <= 1:
        raise ValueError(f"--distill.alpha: {text} given, allowed is [0, 1]")
    return Alpha(text, constant, (number,), schedules)


def _call(part: str, known: dict[str, Callable[..., float]], text: str) -> tuple[Callable[..., float], tuple[Any, ...]]:
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", part)
    if match is None:
        raise ValueError(
            f"--distill.alpha: cannot read {part!r} in {text!r}; allowed are a number or {', '.join(known)}"
        )
    name = match[1]
    if name not in known:
        kind = "policy" if known is _POLICIES else "schedule"
        allowed = [*known, "search"] if known is _POLICIES else known
        raise ValueError("--distill.alpha: " + unknown(kind, name, allowed))
    try:
        arguments = ast.literal_eval(f"({match[2]},)") if match[2] and match[2].strip() else ()
        # A policy is checked at the run's keep fraction, too; a schedule must hold over all of training.
        places = (0.5,) if known is _POLICIES else (0.0, 0.5, 1.0)
        results = [float(known[name](place, *arguments)) for place in places]
    except (SyntaxError, ValueError, TypeError, IndexError, ArithmeticError):
        raise ValueError(
            f"--distill.alpha: wrong arguments in {part!r}; for example constant(0.9), linear(1.0, 0.5), "
            "power(1.0, 0.5, 2), table([[0.1, 1.0], [1.0, 0.5]]), '* warmup(0.1)', '* cosine(0.0)', '* late(0.8)'"
        ) from None
    for place, result in zip(places, results, strict=True):
        if not 0 <= result <= 1:
            raise ValueError(f"--distill.alpha: {part!r} gives {result:g} at {place:g}, allowed is [0, 1]")
    return known[name], arguments
