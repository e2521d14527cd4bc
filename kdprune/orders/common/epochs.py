"""Epochs that differ in their samples, one after the other without a gap, cut into batches as `Stream` does.

Shapes: N samples of a batch, B samples of a batch of all processes together.
"""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

from kdprune.data.counter import permutation
from kdprune.orders.common.plan import Dynamic, Plan


class Epochs(Dynamic):
    """An order whose epochs hold what `members` says, each in a permutation of its own.

    A subclass keeps `ends`: the number of samples in the epochs 0 … e, for every epoch e that is known.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.batch_size = plan.batch_size
        self.ids = torch.from_numpy(plan.ids.astype("int64"))
        self.ends: list[int] = []
        self._orders: dict[int, Tensor] = {}

    def members(self, epoch: int) -> Tensor:
        """Ids of an epoch, int64, in any order."""
        raise NotImplementedError

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """See `Order.batch`."""
        size = self.batch_size // parts
        start = step * self.batch_size + part * size
        return self.at(start, start + size)

    def at(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Ids and epochs of the samples from `start` to before `end` of all, int64 N."""
        position = torch.arange(start, end)
        epochs = torch.searchsorted(torch.tensor(self.ends), position, right=True)
        ids = torch.empty_like(position)
        for epoch in epochs.unique().tolist():
            in_epoch = epochs == epoch
            ids[in_epoch] = self._order(epoch)[position[in_epoch] - self.begin(epoch)]
        return ids, epochs

    def begin(self, epoch: int) -> int:
        """Samples before an epoch."""
        return self.ends[epoch - 1] if epoch else 0

    def epoch_end(self, epoch: int) -> int:
        """See `Order.epoch_end`."""
        return -(-self.ends[epoch] // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """See `Order.epoch_of`."""
        return bisect_right(self.ends, step * self.batch_size)

    def weights(self, ids_N: Tensor, epochs_N: Tensor) -> Tensor | None:
        """See `Order.weights`: all samples count alike."""
        return None

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = permutation(self.plan.key("order", epoch), self.members(epoch))
        return self._orders[epoch]
