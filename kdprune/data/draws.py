"""The uniform numbers that decide a view: one column for each decision, so that a recipe's parts never share a draw.

What belongs together stands together: a slice costs nothing, where a list of columns would be copied to the device at
every step. Columns are added at the end, so that those of before keep their numbers.

Shapes: N samples of the batch, D draws, T tries, K operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdprune.data import counter
from kdprune.data.recipe import MOST_OPERATIONS

TOP, LEFT, FLIP, AREA, RATIO, CUT_Y, CUT_X = range(7)
ERASE, ERASE_AREA, ERASE_RATIO, ERASE_Y, ERASE_X = range(7, 12)
BRIGHTNESS, CONTRAST, SATURATION = range(12, 15)
HUE, GREY, BIN = range(15, 18)
TRIES = 10
_MORE_AREAS = slice(18, 18 + TRIES - 1)
_MORE_RATIOS = slice(_MORE_AREAS.stop, _MORE_AREAS.stop + TRIES - 1)
OPERATIONS = slice(_MORE_RATIOS.stop, _MORE_RATIOS.stop + MOST_OPERATIONS)
SIGNS = slice(OPERATIONS.stop, OPERATIONS.stop + MOST_OPERATIONS)
COUNT = SIGNS.stop


def draws(seed: int, ids_N: Tensor, views_N: Tensor, role: str = counter.STUDENT) -> Tensor:
    """The uniform numbers of each sample's view, float32 N×D in [0, 1)."""
    return counter.uniform(bits(seed, "view", role, ids_N, views_N), COUNT)


def bits(seed: int, word: str, role: str, ids_N: Tensor, views_N: Tensor) -> Tensor:
    """64 random bits of each sample and view, for what a model of a role draws them for."""
    return counter.bits(counter.key(seed, counter.purpose(word, role)), ids_N, views_N)


def areas_and_ratios(u_ND: Tensor) -> tuple[Tensor, Tensor]:
    """What the tries of a random resized crop draw, N×T each."""
    areas = torch.cat([u_ND[:, AREA : AREA + 1], u_ND[:, _MORE_AREAS]], 1)
    return areas, torch.cat([u_ND[:, RATIO : RATIO + 1], u_ND[:, _MORE_RATIOS]], 1)
