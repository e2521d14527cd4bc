"""The process that makes a pass over data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Place:
    """Where this process computes, and which part of the whole is its own.

    Attributes:
        device: where batches go.
        workers: processes that decode images which are not in a store; 0 decodes in this one.
        rank, world: this process among how many; each takes every `world`-th sample.
    """

    device: torch.device
    workers: int = 0
    rank: int = 0
    world: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator, workers: int) -> Place:
        return cls(accelerator.device, workers, accelerator.process_index, accelerator.num_processes)
