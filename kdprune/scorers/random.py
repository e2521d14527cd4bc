"""No order at all. Shapes: N samples."""

from __future__ import annotations

from torch import Tensor

from kdprune.data.counter import bits, key, uniform
from kdprune.scorers.common.scorer import scorer


@scorer("random", needs="nothing", reads=["ids", "seed"], hard="high", labels=False, paper="", cost="nothing")
def random(ids_N: Tensor, seed: int) -> Tensor:
    """A uniform draw in [0, 1) for each sample, by its id and the seed."""
    return uniform(bits(key(seed, "random scores"), ids_N), 1)[:, 0]
