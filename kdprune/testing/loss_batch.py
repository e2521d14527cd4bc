"""A batch with everything that a distillation loss may read, and what is done to all of its tensors.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput

# Different from each other and from the features' channels, so that a mix-up of dimensions shows.
SAMPLES, CLASSES = 6, 5


def example_batch(samples: int = SAMPLES, seed: int = 0, mixed: bool = False) -> LossInput:
    """A random batch with everything that a loss may read; the student's tensors are leaves that want gradients.

    Features are maps of two layers on either side, whose channels and sizes differ between student and teacher.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.randint(CLASSES, (samples,), generator=generator)
    if mixed:
        one_hot_NC = F.one_hot(labels, CLASSES).float()
        labels = 0.7 * one_hot_NC + 0.3 * one_hot_NC.roll(1, 0)
    return LossInput(
        student_logits=(2 * normal(samples, CLASSES)).requires_grad_(),
        teacher_logits=2 * normal(samples, CLASSES),
        labels=labels,
        sample_ids=torch.randperm(80, generator=generator)[:samples],
        student_features={
            "shallow": normal(samples, 4, 8, 8).requires_grad_(),
            "deep": normal(samples, 3, 2, 2).requires_grad_(),
        },
        teacher_features={"stem": normal(samples, 7, 4, 4), "body": normal(samples, 9, 2, 2)},
    )


def tensors_of(batch: LossInput) -> dict[str, Tensor]:
    """The tensors of a batch by name."""
    tensors = {}
    for name, value in vars(batch).items():
        for key, tensor in value.items() if isinstance(value, dict) else [("", value)]:
            if tensor is not None:
                tensors[f"{name}[{key!r}]" if key else name] = tensor
    return tensors


def mapped(batch: LossInput, function: Callable[[Tensor], Tensor]) -> LossInput:
    """The batch with `function` applied to each of its tensors."""

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: function(tensor) for key, tensor in value.items()}
        return None if value is None else function(value)

    return LossInput(**{name: apply(value) for name, value in vars(batch).items()})
