"""InfoBatch: unbiased dynamic data pruning (Qin et al. 2024, arXiv 2303.04947).

Shapes: K kept samples, N samples of a batch, B samples of a batch of all processes together, P samples of a process's
part of a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdprune.data.counter import bits, uniform
from kdprune.orders.common.epochs import Epochs
from kdprune.orders.common.plan import Plan
from kdprune.registry import register


def pruned(loss_K: Tensor, draw_K: Tensor, ratio: float) -> Tensor:
    """Weights of the samples in an epoch, float32 K: 0 for those that it leaves out.

    A sample whose loss is below the mean is left out with probability `ratio`, and else weighs 1 / (1 − ratio), so that
    its expected weight is 1, as that of all others is (Qin et al. 2024, section 2: soft pruning and rescaling).

    Args:
        loss_K: latest losses; NaN where none is known, which counts for no mean and is never left out.
        draw_K: uniform in [0, 1).
        ratio: in [0, 1).
    """
    loss_K = loss_K.double()
    known_K = loss_K[~loss_K.isnan()].numpy()
    # numpy's sum does not depend on the number of threads.
    below_K = loss_K < (known_K.mean() if len(known_K) else torch.nan)
    weight_K = torch.where(below_K, 1 / (1 - ratio), 1.0)
    return weight_K.masked_fill(below_K & (draw_K < ratio), 0.0).float()


@register("orders", "infobatch")
class InfoBatch(Epochs):
    """Epochs without a random part of the samples that are learned well, whose others count for them.

    The budget is counted on a clock that an epoch moves by one epoch of all kept samples, whatever it holds: schedules
    follow it, and the training ends when it has run down, after fewer steps.

    What epoch e holds is decided just before the first step that has a sample of it, by the losses of all steps before.
    So batches are full, every process decides alike, and nobody can ask for a batch before it is decided. The few
    samples of epoch e − 1 that share that step with epoch e are judged by the loss before.

    The loss of a sample is the one that it is trained by, cross-entropy and distillation, before its weight.

    Args:
        plan: of the training.
        ratio: share of the samples below the mean loss that an epoch leaves out, in [0, 1).
        anneal: share of the epochs after which nothing is left out any more, in [0, 1].

    Raises:
        ValueError: a value that is not allowed.
    """

    weighs = True

    def __init__(self, plan: Plan, ratio: float = 0.5, anneal: float = 0.875) -> None:
        super().__init__(plan)
        for name, value, fits, allowed in (
            ("ratio", ratio, lambda x: 0 <= x < 1, "[0, 1)"),
            ("anneal", anneal, lambda x: 0 <= x <= 1, "[0, 1]"),
        ):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not fits(value):
                raise ValueError(f"{name} of infobatch: {value!r} given, allowed is {allowed}")
        self.ratio = ratio
        self.all_samples = plan.steps * plan.batch_size
        self.epochs = self.views = -(-self.all_samples // len(self.ids))
        self.last_pruned = math.ceil(anneal * self.epochs) - 1  # the last epoch e < anneal · epochs
        self._losses = torch.full((len(self.ids),), torch.nan)
        self._weights: dict[int, Tensor] = {}  # of the epochs that are not over, float32 K
        self._done = 0  # steps
        self._since = 0  # the first step whose losses are not in `_losses` yet, but in `_pending`
        self._pending: Tensor | None = None
        self._decide()

    @property
    def steps(self) -> int:
        """See `Adaptive.steps`."""
        kept, last = len(self.ids), self.epochs - 1
        known = min(last, len(self.ends))
        before_last = (self.ends[known - 1] if known else 0) + (last - known) * kept
        of_last = self.ends[last] - self.ends[last - 1] if last and last < len(self.ends) else kept
        # The budget may end inside of the last epoch, which is begun whatever the others left out.
        samples = before_last + of_last * (self.all_samples - last * kept) // kept
        return max(samples // self.batch_size, before_last // self.batch_size + 1)

    @property
    def decided(self) -> int:
        """See `Adaptive.decided`."""
        return min(self.steps, self.ends[-1] // self.batch_size)

    def clock(self, step: int) -> float:
        """See `Adaptive.clock`."""
        position, epoch = step * self.batch_size, self.epoch_of(step)
        within = (position - self.begin(epoch)) / (self.ends[epoch] - self.begin(epoch))
        return min((epoch + within) * len(self.ids) / self.batch_size, self.plan.steps)

    def members(self, epoch: int) -> Tensor:
        """See `Epochs.members`."""
        return self.ids[self._weights[epoch] > 0]

    def weights(self, ids_N: Tensor, epochs_N: Tensor) -> Tensor:
        """See `Order.weights`."""
        rank_N = torch.searchsorted(self.ids, ids_N)
        weight_N = torch.empty(len(ids_N))
        for epoch in epochs_N.unique().tolist():
            in_epoch = epochs_N == epoch
            weight_N[in_epoch] = self._weights[epoch][rank_N[in_epoch]]
        return weight_N

    def observe(self, step: int, first: int, parts: int, losses: Sequence[Tensor]) -> None:
        """See `Adaptive.observe`."""
        size = self.batch_size // parts
        if self._pending is None:
            self._pending = losses[0].new_zeros((self.decided - self._since) * self.batch_size)
        # By place in the stream and not by sample: no two places are one, so the order of writing does not matter.
        start = (step - self._since) * self.batch_size + first * size
        self._pending[start : start + len(losses) * size] = torch.cat(list(losses))
        self._done = step + 1
        if self._done >= self.decided:
            self._take_in()
            self._decide()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; every process must call it."""
        self._take_in()
        return {"done": self._done, "ends": self.ends, "losses": self._losses, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._done = self._since = state["done"]
        self.ends, self._losses, self._weights = state["ends"], state["losses"], state["weights"]
        self._pending = None
        self._orders.clear()

    def _take_in(self) -> None:
        """Bring the losses of the steps that are done together from all processes; the host waits for them here."""
        if self._since == self._done:
            return
        assert self._pending is not None
        loss = self.plan.gather(self._pending).cpu()
        start, end = self._since * self.batch_size, self._done * self.batch_size
        ids, epochs = self.at(start, end)
        for epoch in epochs.unique().tolist():  # ascending, so that the latest loss of a sample stays
            in_epoch = epochs == epoch
            self._losses[torch.searchsorted(self.ids, ids[in_epoch])] = loss[: end - start][in_epoch].float()
        self._since, self._pending = self._done, None

    def _decide(self) -> None:
        """Decide what the next epochs hold, until the next step is among the decided ones or there is none."""
        over = [epoch for epoch in self._weights if self.ends[epoch] <= self._done * self.batch_size]
        while (not self.ends or self.decided <= self._done) and (not self.ends or self._done < self.steps):
            epoch = len(self.ends)
            weights = torch.ones(len(self.ids))
            if epoch <= self.last_pruned:
                draws = uniform(bits(self.plan.key("infobatch", epoch), self.ids), 1)[:, 0]
                weights = pruned(self._losses, draws, self.ratio)
            self._weights[epoch] = weights
            self.ends.append(self.begin(epoch) + int((weights > 0).sum()))
        for epoch in over:
            del self._weights[epoch]
