"""Which short runs to make for a share of the budget, and which arms it is too small for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kdprune.planning.budget import PASSES, Budget
from kdprune.planning.price import Price

SHARE = 0.2  # of the budget, for pilots
MOST_SHARE = 0.5
RATIO, LENGTHS, REPEATS = 3, 3, 2  # lengths are the longest one, a third and a ninth of it; runs of each
SHORTEST = 10  # steps of the shortest
PARTS = 0.5  # of the budget that may go into what runs are made of, such as teachers
MARGIN = 0.05  # of a time that is not planned, since no time is foreseen exactly

_LENGTH = sum(RATIO**-power for power in range(LENGTHS))  # of an arm's pilots, in units of the longest


@dataclass(frozen=True)
class Design:
    """What is made before there is anything to choose by.

    Attributes:
        lengths: of an arm's pilots in steps, by its name; none where finished runs say enough.
        dropped: arms that the budget is too small for, with the reason.
        pilots, parts: what pilots will cost, and what they and the run are made of.
    """

    lengths: dict[str, list[int]]
    dropped: dict[str, str]
    pilots: float
    parts: float


def make_design(
    budget: Budget,
    share: float,
    prices: Mapping[str, Price],
    parts: Mapping[str, Mapping[str, float]],
    is_known: Callable[[str, int], bool] = lambda arm, longest: False,
) -> Design:
    """Divide the budget.

    Args:
        share: of it that pilots may take; 0 for none.
        prices: by the arms' names.
        parts: what each arm is made of that is still to be made, with what that costs.
        is_known: whether finished runs say as much of an arm as pilots would, the longest of so many steps.

    Raises:
        ValueError: the budget is too small for any pilots, and how much is the least.
    """
    check_share(share)
    dropped = _beyond(budget, parts)
    names = [name for name in prices if name not in dropped]
    if not names:
        least = min(sum(of_arm.values()) for of_arm in parts.values()) / PARTS
        raise ValueError(
            f"--budget: {budget.text} given; what any arm is made of takes more than half of it, so the least is "
            f"{budget.words(least)}"
        )
    made = sum({id: cost for name in names for id, cost in parts[name].items()}.values())
    if share == 0:
        return Design({name: [] for name in names}, dropped, 0.0, made)
    longest = _longest(budget, share, {name: prices[name] for name in names})
    known = [name for name in names if is_known(name, longest[name])]
    lengths = {name: [] if name in known else lengths_to(longest[name]) for name in names}
    pilots = sum(pilots_cost(prices[name], lengths[name]) for name in names)
    left = left_for_the_run(budget, pilots + made)
    for name in names:
        if prices[name].steps_for(left) <= longest[name]:
            dropped[name] = f"{budget.words(max(0.0, left))} would be left for the run, which is less than its pilots"
            del lengths[name]
    if not lengths:
        raise ValueError(
            f"--budget: {budget.text} given; pilots and what they are made of would take {budget.words(pilots + made)} "
            "of it and leave too little for a run; take a smaller --pilot_share or fewer arms (--grid.…)"
        )
    return Design(lengths, dropped, pilots, made)


def check_share(share: float) -> None:
    """Refuse a share of the budget that would leave too little for the run.

    Raises:
        ValueError: outside [0, 0.5].
    """
    if not 0 <= share <= MOST_SHARE:
        raise ValueError(f"--pilot_share: {share} given, allowed is [0, {MOST_SHARE}]")


def left_for_the_run(budget: Budget, spent: float) -> float:
    """What may be spent on the run that is planned."""
    return budget.amount * (1 if budget.unit == PASSES else 1 - MARGIN) - spent


def lengths_to(longest: int) -> list[int]:
    """Of pilots, ascending."""
    return [longest // RATIO**power for power in reversed(range(LENGTHS))]


def pilots_cost(price: Price, lengths: Sequence[int]) -> float:
    """Of the pilots of an arm."""
    return REPEATS * sum(price.of_run(steps) for steps in lengths)


def _beyond(budget: Budget, parts: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Arms that are left out, the costliest part first, until half of the budget pays for the parts of all others."""
    dropped: dict[str, str] = {}
    while True:
        costs = {id: cost for name, of_arm in parts.items() if name not in dropped for id, cost in of_arm.items()}
        if sum(costs.values()) <= PARTS * budget.amount:
            return dropped
        costliest = max(costs, key=lambda id: costs[id])
        for name, of_arm in parts.items():
            if costliest in of_arm and name not in dropped:
                dropped[name] = (
                    f"what it is made of, such as a teacher, takes {budget.words(sum(of_arm.values()))}, and with that "
                    "of other arms more than half of the budget"
                )


def _longest(budget: Budget, share: float, prices: Mapping[str, Price]) -> dict[str, int]:
    """Steps of the longest pilot of each arm, all of which cost the same."""
    amount = share * budget.amount
    fixed = REPEATS * LENGTHS * sum(price.of_run(0) for price in prices.values())
    each = (amount - fixed) / (REPEATS * _LENGTH * len(prices))
    steps = {name: int(each // price.step) for name, price in prices.items()}
    least = SHORTEST * RATIO ** (LENGTHS - 1)
    if min(steps.values()) < least:
        dearest = max(price.step for price in prices.values())
        enough = (fixed + REPEATS * _LENGTH * len(prices) * dearest * (least + 1)) / share
        raise ValueError(
            f"--budget: {budget.text} given; with {len(prices)} arms the least is {budget.words(1.01 * enough)}, so "
            f"that pilots of {', '.join(map(str, lengths_to(least)))} steps, {REPEATS} of each, are {share:g} of it; "
            "take fewer arms (--grid.…) or a larger --pilot_share"
        )
    return steps
