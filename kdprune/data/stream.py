"""Which sample is seen when: the endless stream of (sample id, epoch), cut into batches.

Epoch e is the kept ids in the order that (seed, e) gives; the epochs follow each other without a gap, and step s takes
the samples [s·B, (s+1)·B). So every batch is full, no sample is dropped at the end of an epoch, a subset smaller than a
batch works, and the batches of all processes together are the batches of one.

Shapes: N samples of a batch, K kept samples, B samples of a batch of all processes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from kdprune.data.counter import STUDENT, key, permutation, purpose


class Order(Protocol):
    """The order of a training's samples, as functions of the step: a resumed training asks as one that never stopped.

    A training counts steps. What an epoch is, how long it takes and which samples it holds is up to the order.
    """

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Sample ids and epochs, int64 N, of the `part`-th of `parts` equal pieces of the batch of a step.

        A sample is shown in the view of that number; an order may count anything else that grows with the steps.
        """

    def epoch_end(self, epoch: int) -> int:
        """The number of steps after which every sample of the epochs 0 … epoch has been seen."""

    def epoch_of(self, step: int) -> int:
        """The epoch whose end is the next one to come when `step` steps are done."""

    def weights(self, ids_N: Tensor, epochs_N: Tensor) -> Tensor | None:
        """Weights of the samples in the loss, float32 N; None: all count alike."""


@runtime_checkable
class Adaptive(Order, Protocol):
    """An order that goes by the losses of the training that follows it, so that it is decided step by step.

    It always gives weights, since only then are the losses of single samples known.
    """

    @property
    def steps(self) -> int:
        """Steps of the training: at most so many at first, exactly so many when all is decided."""

    @property
    def decided(self) -> int:
        """The number of steps whose batches are known; more than are done, until the last step is."""

    def clock(self, step: int) -> float:
        """Where schedules stand when `step` steps are done, in steps of the budget."""

    def observe(self, step: int, first: int, parts: int, losses: Sequence[Tensor]) -> None:
        """Take the losses of a step that is done; called by every process, in the order of the steps.

        Args:
            step: whose batch it was.
            first, parts: the losses are those of the `first`-th and the following ones of `parts` pieces of the batch.
            losses: of each sample of a piece, before its weight, float N, on the device.
        """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stream:
    """The order of a training on a fixed subset: each epoch is a new permutation of it.

    Args:
        ids: kept sample ids, int64 K.
        batch_size: samples a step, over all processes.
        seed: of the run.
        role: of the trained model; a teacher meets its samples in another order than a student of the same seed.
    """

    def __init__(self, ids: np.ndarray, batch_size: int, seed: int, role: str = STUDENT) -> None:
        self.ids = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
        self.batch_size = batch_size
        self.seed = seed
        self.role = role
        self._orders: dict[int, Tensor] = {}

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """See `Order.batch`."""
        size = self.batch_size // parts
        start = step * self.batch_size + part * size
        epoch, first = divmod(start, len(self.ids))
        if first + size <= len(self.ids):  # a copy, or a worker would be sent the whole order with it
            return self._order(epoch)[first : first + size].clone(), torch.full((size,), epoch)
        position = torch.arange(start, start + size)
        epochs = torch.div(position, len(self.ids), rounding_mode="floor")
        ids = torch.empty_like(position)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            in_epoch = epochs == epoch
            ids[in_epoch] = self._order(epoch)[position[in_epoch] % len(self.ids)]
        return ids, epochs

    def epoch_end(self, epoch: int) -> int:
        """See `Order.epoch_end`."""
        return -(-(epoch + 1) * len(self.ids) // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """See `Order.epoch_of`."""
        epoch = step * self.batch_size // len(self.ids)
        return epoch if step < self.epoch_end(epoch) else epoch + 1

    def weights(self, ids_N: Tensor, epochs_N: Tensor) -> None:
        """See `Order.weights`: all samples count alike."""

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            # Two epochs at most meet in a batch that is no larger than an epoch; older ones are never met again.
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = permutation(key(self.seed, purpose("order", self.role), epoch), self.ids)
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
