"""Backward pass and optimizer step as Accelerate does them, and a step's seeds, without what costs more than they do.

Accelerate looks for optional packages in every step, and `torch.manual_seed` visits all kinds of devices: together more
than a millisecond, which is the whole step of a small network.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from torch import Tensor

_OF_TORCH = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Update:
    """From a loss to new weights.

    Args:
        optimizer: as Accelerate prepared it.
    """

    def __init__(self, accelerator: Accelerator, optimizer: AcceleratedOptimizer) -> None:
        self.accelerator, self.optimizer = accelerator, optimizer
        # No scaler of losses, no engine of its own: then Accelerate calls nothing but these two.
        self._plain = accelerator.scaler is None and accelerator.distributed_type in _OF_TORCH

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        if self._plain:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def step(self) -> None:
        """Change the weights, and forget the gradients."""
        optimizer = self.optimizer.optimizer if self._plain else self.optimizer
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the host and of a device, as `torch.manual_seed` seeds those of all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
