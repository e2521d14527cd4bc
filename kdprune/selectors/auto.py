"""Hardest or easiest, by how much data is kept."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np

from kdprune.messages import shown
from kdprune.registry import register
from kdprune.selectors.common.arguments import check_number
from kdprune.selectors.common.order import highest, lowest
from kdprune.selectors.common.pool import Pool, declare, scores_of

log = logging.getLogger("kdprune")

Side = Literal["hardest", "easiest"]
SIDES = ("hardest", "easiest")


def per_class(pool: Pool) -> float:
    """Kept samples for each class; data without classes counts as one."""
    return pool.count / max(1, len(pool.classes))


def resolve(pool: Pool, threshold: Any = 1000, keep: Any = None) -> dict[str, Any]:
    """The side that the whole pool keeps, so that all classes keep the same one.

    Raises:
        ValueError: an argument out of its range.
    """
    check_number("auto(threshold=…)", threshold, 0, np.inf, "[)")
    if keep is None:
        kept = per_class(pool)
        keep = side(kept, threshold)
        log.info(
            "auto: %s kept samples a class, %s %g: data is %s, so the %s are kept",
            f"{kept:,.6g}", "at least" if keep == "hardest" else "fewer than", threshold,
            "abundant" if keep == "hardest" else "scarce", keep,
        )  # fmt: skip
    elif keep not in SIDES:
        raise ValueError(f"auto(keep=…): {shown(keep)} given, allowed is {' or '.join(SIDES)}")
    return {"threshold": threshold, "keep": keep}


def side(kept: float, threshold: float) -> Side:
    return "hardest" if kept >= threshold else "easiest"


@register("selectors", "auto")
@declare(needs=["scores"], resolve=resolve)
def auto(pool: Pool, threshold: float = 1000, keep: Side | None = None) -> np.ndarray:
    """Keep the hardest samples where data is abundant, and the easiest where it is scarce (Sorscher et al. 2022, §2).

    The rule: abundant is what keeps at least `threshold` samples for each class.

    Args:
        threshold: kept samples a class, of the whole pool on average.
        keep: the side, where it is known already.
    """
    take = highest if (keep or side(per_class(pool), threshold)) == "hardest" else lowest
    return pool.candidates[take(scores_of(pool), pool.count, pool.candidates, pool.seed)]
