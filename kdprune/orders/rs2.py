"""RS2: a new random subset for each epoch (Okanovic et al. 2024, arXiv 2305.18424)."""

from __future__ import annotations

from kdprune.data.stream import Stream
from kdprune.orders.common.plan import Dynamic, Plan
from kdprune.registry import register


@register("orders", "rs2")
class RS2(Stream, Dynamic):
    """Repeated sampling of random subsets, without repetition: each epoch is the next part of a permutation of all
    samples, and a new permutation begins when one is used up.

    The samples are those of a training on all the data, in its order; only the epochs, and with them the learning
    rate's schedule, are shorter. What `batch` gives beside the ids is the pass over all samples, so that a sample is
    seen in a view that it was not seen in before, the same one as in a training on all the data.
    """

    redraws = True

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.ids, plan.batch_size, plan.seed, plan.role)
        self.size = plan.size
        samples = plan.steps * plan.batch_size
        self.epochs = -(-samples // plan.size)
        self.views = -(-samples // len(plan.ids))
        self.all_samples = round(samples * len(plan.ids) / plan.size)

    def epoch_end(self, epoch: int) -> int:
        """See `Order.epoch_end`."""
        return -(-(epoch + 1) * self.size // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """See `Order.epoch_of`."""
        return step * self.batch_size // self.size
