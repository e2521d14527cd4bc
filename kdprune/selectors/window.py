"""A block of the samples in the order of their difficulty. Shapes: M candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdprune.messages import counted
from kdprune.registry import register
from kdprune.selectors.common.arguments import at_least, at_most, check_number, check_whole
from kdprune.selectors.common.order import lowest
from kdprune.selectors.common.pool import Pool, declare, scores_of


def resolve(pool: Pool, start: Any = None, end: Any = None, skip_hardest: Any = None) -> dict[str, Any]:
    """Arguments for every class: `skip_hardest` counts samples of the whole pool, and becomes a share of it.

    Raises:
        ValueError: more than one argument; one out of its range; a window beyond the end, with what is allowed.
    """
    total, count = len(pool.candidates), pool.count
    values = {"start": start, "end": end, "skip_hardest": skip_hardest}
    if len(given := [name for name, value in values.items() if value is not None]) > 1:
        raise ValueError(f"window: {' and '.join(given)} given, allowed is one of start, end and skip_hardest")
    room = f"window keeps {count:,} of {counted(total, 'sample')} and would reach beyond the"
    if start is not None:
        if round(check_number("window(start=…)", start, 0, 1, "[)") * total) > total - count:
            raise ValueError(f"{room} hardest: start={start} given, allowed is {at_most(1 - count / total)}")
        return {"start": start}
    if end is not None:
        if round(check_number("window(end=…)", end, 0, 1, "(]") * total) < count:
            raise ValueError(f"{room} easiest: end={end} given, allowed is {at_least(count / total)}")
        return {"end": end}
    if skip_hardest is not None:
        if check_whole("window(skip_hardest=…)", skip_hardest, 0) > total - count:
            raise ValueError(f"{room} easiest: skip_hardest={skip_hardest} given, allowed is at most {total - count:,}")
        return {"end": 1 - skip_hardest / total}
    return {}


@register("selectors", "window")
@declare(needs=["scores"], nested=True, resolve=resolve)
def window(
    pool: Pool, start: float | None = None, end: float | None = None, skip_hardest: int | None = None
) -> np.ndarray:
    """Keep a block of neighbours in ascending order of difficulty (Paul et al. 2021, §3.3).

    A class whose window would reach beyond an end, because of rounding or a class floor, keeps the block at that end.

    Args:
        start: share of the samples that is left out at the easy end, in [0, 1).
        end: share of the samples where the block ends, in (0, 1]; the 1 − end hardest are left out.
        skip_hardest: the same as a number of samples.
            With none of the three, as many are left out at one end as at the other.
    """
    total = len(pool.candidates)
    free = total - pool.count  # samples left out at both ends together
    if skip_hardest is not None:
        end = 1 - skip_hardest / total
    if start is not None:
        first = round(start * total)
    elif end is not None:
        first = round(end * total) - pool.count
    else:
        first = free // 2
    first = min(max(first, 0), free)
    scores_M = scores_of(pool)
    below = lowest(scores_M, first, pool.candidates, pool.seed)
    return pool.candidates[lowest(scores_M, first + pool.count, pool.candidates, pool.seed) & ~below]
