"""Who sees which sample when: the endless stream of (sample id, epoch), cut into batches.

Epoch e is the kept ids in the order that (seed, e) gives; the epochs follow each other without a gap, and step s takes
the samples [s·B, (s+1)·B). So every batch is full, no sample is dropped at the end of an epoch, a subset smaller than a
batch works, and the batches of all processes together are the batches of one.
"""

from __future__ import annotations

import numpy as np
import torch

from kdprune.data.counter import key, permutation


class Stream:
    """The batches of one run.

    Args:
        ids: kept sample ids, int64 K.
        batch_size: samples a step, over all processes.
        seed: of the run.
    """

    def __init__(self, ids: np.ndarray, batch_size: int, seed: int) -> None:
        self.ids = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, torch.Tensor] = {}

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample ids and epochs, int64, of the `part`-th of `parts` equal pieces of the batch of a step."""
        size = self.batch_size // parts
        start = step * self.batch_size + part * size
        position = torch.arange(start, start + size)
        epochs = torch.div(position, len(self.ids), rounding_mode="floor")
        ids = torch.empty_like(position)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            ids[here] = self._order(epoch)[position[here] % len(self.ids)]
        return ids, epochs

    def epoch_end(self, epoch: int) -> int:
        """The number of steps after which every sample of the epochs 0 … epoch has been seen."""
        return -(-(epoch + 1) * len(self.ids) // self.batch_size)

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            # Two epochs at most meet in a batch that is no larger than an epoch; older ones are never met again.
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = permutation(key(self.seed, "order", epoch), self.ids)
        return self._orders[epoch]


def total_steps(epochs: float, steps: int | None, budget: str, kept: int, total: int, batch_size: int) -> int:
    """Steps of a run, at least 1.

    Args:
        epochs: passes over the kept samples (budget 'subset') or over as many samples as all (budget 'full').
        steps: if given, the answer.
    """
    if steps is not None:
        return steps
    samples = epochs * (kept if budget == "subset" else total)
    return max(1, int(samples // batch_size))
