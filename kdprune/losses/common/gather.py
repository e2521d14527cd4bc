"""The batch of all processes, for losses that compare samples with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gather_batch(local: Tensor) -> Tensor:
    """Every process's rows, in the order of the ranks; `local` itself where there is one process.

    For a loss that every process computes alike from the gathered rows. Only the own rows carry a gradient, times the
    world size: DDP then averages over the processes, and what comes out is the gradient of one process that holds the
    whole batch. All processes must hold equally many rows.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)
    return gathered


def first_row(rows: int) -> int:
    """Where this process's rows begin in what `gather_batch` gives, each process having as many."""
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
        # no communication: the other processes' losses are the same function, hence the factor
        return gradients[0].chunk(world)[distributed.get_rank()] * world
