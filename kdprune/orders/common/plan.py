"""What a dynamic order is made from, and what it says of itself.

A plug-in is a class whose first argument is a `Plan`; its further parameters are what a user writes in brackets. It is
an `Order` (see `kdprune.data.stream`), or an `Adaptive` one where it goes by losses.

Shapes: N samples of the unpruned training set, K kept samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from kdprune.data.counter import STUDENT, key, purpose


def alone(x: Tensor) -> Tensor:
    """The sum over one process."""
    return x


@dataclass(frozen=True)
class Plan:
    """A training, as far as the order of its samples depends on it.

    Attributes:
        ids: of the samples that an epoch may hold, ascending, int64 K.
        batch_size: samples of a step, over all processes.
        steps: of the training if nothing is pruned on the way; they and the batch size are its budget.
        size: samples of an epoch, where the method takes the keep fraction for one (`redraws`); else K.
        seed: of the order of samples.
        role: of the trained model.
        scores: difficulty of every sample of the unpruned training set, float N, higher is harder; None without.
        gather: adds up a tensor over all processes, every one of which calls it.
    """

    ids: np.ndarray
    batch_size: int
    steps: int
    size: int
    seed: int
    role: str = STUDENT
    scores: np.ndarray | None = None
    gather: Callable[[Tensor], Tensor] = alone

    def key(self, word: str, *parts: int) -> int:
        """The key of a draw, such as the order of an epoch."""
        return key(self.seed, purpose(word, self.role), *parts)


class Dynamic:
    """What a method says of itself; to be overridden.

    Attributes:
        redraws: the keep fraction is that of an epoch, and every sample may come to be in one. Otherwise the epochs
            hold samples of the one kept subset.
        weighs: samples have weights in the loss.
        epochs: that are begun within the budget.
        views: that a sample is seen in, at most.
        all_samples: that as many epochs would take without the method.
    """

    redraws: bool = False
    weighs: bool = False
    epochs: int
    views: int
    all_samples: int

    @classmethod
    def reads_scores(cls, **arguments: Any) -> bool:
        """Whether the difficulty of every sample must be known, with these arguments."""
        return False
