"""The batch of all processes, for losses that compare samples with each other.

Without it, the value of such a loss would depend on how many processes share the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gather_batch(local: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; `local` itself in a single process.

    Meant for a loss that every process computes from the same gathered rows. The gradient flows to this process's rows
    only, multiplied by the number of processes: after DDP has averaged over processes, it equals that of one process
    with the whole batch. All processes must hold the same number of rows.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)
    return gathered


def first_row(rows: int) -> int:
    """The index of this process's first row in the result of `gather_batch`, where each process has `rows`."""
    return rows * distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [
            torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        world = distributed.get_world_size()
        # every process computes the same loss, so the sum of their gradients is this one times their number;
        # nothing need be sent
        return gradients[0].chunk(world)[distributed.get_rank()] * world
