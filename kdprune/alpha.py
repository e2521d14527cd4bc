"""The weight α of the distillation term, as a function of the keep fraction and of the progress of training.

Ben-Baruch et al. 2025 (arXiv 2403.07854) find that the best α grows as less data is kept, near 1 at a tenth of the
data; they publish no formula, so the policies here are families to choose from. Imports nothing heavy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdprune import calls
from kdprune.messages import about, shown, unknown

OPTION = "--distill.alpha"


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


_EXAMPLES = (
    "for example constant(0.9), linear(1.0, 0.5), power(1.0, 0.5, 2), table([[0.1, 1.0], [1.0, 0.5]]), "
    "'* warmup(0.1)', '* cosine(0.0)', '* late(0.8)'"
)


@dataclass(frozen=True)
class Bound:
    """A policy or schedule with its arguments; called with the keep fraction or the progress."""

    function: Callable[..., float]
    arguments: dict[str, Any]

    def __call__(self, place: float) -> float:
        return self.function(place, **self.arguments)


@dataclass(frozen=True)
class Alpha:
    """A policy over the keep fraction, times schedules over training."""

    text: str
    policy: Bound
    schedules: tuple[Bound, ...] = field(default=())

    def at(self, keep_fraction: float, progress: float | None = None) -> float:
        """α for a keep fraction in (0, 1] and, if there are schedules, a progress in [0, 1] (None: without them).

        Raises:
            ValueError: the policy gives an α outside [0, 1].
        """
        try:
            alpha = self.policy(keep_fraction)
        except ArithmeticError:  # such as a tiny fraction to a large negative power
            alpha = math.nan
        if not 0 <= alpha <= 1:
            raise ValueError(
                f"{OPTION}: {self.text!r} gives α = {alpha:g} at keep fraction {keep_fraction:g}, allowed is [0, 1]"
            )
        if progress is not None:
            for schedule in self.schedules:
                alpha *= schedule(progress)
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
    if not str(value).lstrip().startswith("search"):
        return None
    with about(OPTION):
        call = calls.parse_call(value)
        if call.name != "search":
            return None
        lists = calls.bind(call, Search, "policy")
        try:
            found = Search(**{name: tuple(float(x) for x in candidates) for name, candidates in lists.items()})
            fits = all(0 <= a <= 1 for a in found.alphas) and all(t > 0 for t in found.temperatures)
        except (ValueError, TypeError):
            fits = False
        if not fits or not found.alphas:
            raise ValueError(
                f"{shown(value)} given, allowed are search, search([α, …]) with α in [0, 1], or "
                "search([α, …], [T, …]) with T > 0"
            )
    return found


def parse(value: float | str) -> Alpha:
    """Read `--distill.alpha` (anything but a search).

    Raises:
        ValueError: unknown policy or schedule (with the nearest known one), wrong arguments, a number outside [0, 1].
    """
    text = str(value)
    with about(OPTION):
        products = calls.parse(text)
        if len(products) != 1:
            raise ValueError(f"{shown(text)} given, allowed is one policy, and schedules after '*'; {_EXAMPLES}")
        first, *factors = products[0]
        return Alpha(text, _policy(first), tuple(_schedule(factor) for factor in factors))


def _policy(factor: calls.Factor) -> Bound:
    if not isinstance(factor, calls.Call):
        if not 0 <= factor <= 1:
            raise ValueError(f"{factor} given, allowed is [0, 1]")
        return Bound(constant, {"alpha": float(factor)})
    if factor.name not in _POLICIES:
        raise ValueError(unknown("policy", factor.name, [*_POLICIES, "search"]))
    # Only tried: α is checked at the run's keep fraction, too.
    return _bound(factor, "policy", _POLICIES, places=(0.5,))


def _schedule(factor: calls.Factor) -> Bound:
    if not isinstance(factor, calls.Call):
        raise ValueError(f"{factor} given after '*', allowed are schedules: {', '.join(_SCHEDULES)}")
    if factor.name not in _SCHEDULES:
        raise ValueError(unknown("schedule", factor.name, _SCHEDULES))
    return _bound(factor, "schedule", _SCHEDULES, places=(0.0, 0.5, 1.0))


def _bound(call: calls.Call, what: str, known: dict[str, Callable[..., float]], places: Sequence[float]) -> Bound:
    function = known[call.name]
    bound = Bound(function, calls.bind(call, function, what, supplied=1))
    for place in places:
        try:
            result = float(bound(place))
        except (ValueError, TypeError, IndexError, ArithmeticError):
            raise ValueError(f"wrong arguments in {shown(str(call))}; {_EXAMPLES}") from None
        if not 0 <= result <= 1:
            raise ValueError(f"{shown(str(call))} gives {result:g} at {place:g}, allowed is [0, 1]")
    return bound
