"""What every distillation loss is given and gives back.

Shapes: N samples of the batch, C classes, K classes mixed into one label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor, nn


@dataclass
class LossInput:
    """One batch as the losses see it. Logits are as the models gave them (any float type); losses compute in float32.

    Attributes:
        student_logits: N×C.
        teacher_logits: N×C, no gradient. An ensemble comes as one teacher whose softmax at the run's temperature is
            the average of the members' (see `kdprune.teachers.ensemble`).
        target: int64 N (class ids), or float N×C (class probabilities, under mixup or cutmix), or None where the
            transfer set has no labels.
        sample_ids: int64 N, index into the unpruned training set, on the device.
        student_features, teacher_features: by module path, as the forward hooks saw them; empty unless asked for.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    target: Tensor | None = None
    sample_ids: Tensor | None = None
    student_features: dict[str, Tensor] = field(default_factory=dict)
    teacher_features: dict[str, Tensor] = field(default_factory=dict)


class DistillLoss(nn.Module):
    """A distillation loss: a module, because some have parameters (projectors) that train with the student.

    A plug-in writes `compute`; `forward` is what the trainer calls. Its life: constructed, `check`ed against the data,
    `build`t on example features when it `needs_features`, handed to the optimizer, called once a step.

    Attributes:
        needs_labels: `target` may not be None.
        needs_features: the trainer must record `layers` and call `build` before it makes the optimizer.
        needs_all_logits: the k largest of the teacher's logits and the mass of the others are not enough.
        accepts_mixed_labels: `target` may be N×C.
        min_classes: with fewer the loss teaches nothing.
        layers: pairs (student module path, teacher module path) whose outputs the loss reads.
    """

    needs_labels: bool = False
    needs_features: bool = False
    needs_all_logits: bool = False
    accepts_mixed_labels: bool = True
    min_classes: int = 1
    layers: tuple[tuple[str, str], ...] = ()

    def __init__(self) -> None:  # nn.Module's takes anything, and says so in its signature
        super().__init__()

    def check(self, num_classes: int) -> None:
        """Refuse, before the first step, what this loss cannot do (`ValueError`)."""
        if num_classes < self.min_classes:
            name = type(self).__name__
            raise ValueError(f"{name} needs at least {self.min_classes} classes, the data has {num_classes}")

    def temperatures(self) -> tuple[float, ...]:
        """Those at which the softmax of the teacher's logits is taken: its own `temperature`, if it has one."""
        own = getattr(self, "temperature", None)
        return () if own is None else (own,)

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        """Make the parameters that depend on the features' widths, from the features of any one batch."""

    def forward(self, batch: LossInput) -> Tensor:
        """The loss of a batch, a float32 scalar, averaged over its samples.

        Raises:
            ValueError: labels are missing or mixed where the loss cannot do with that.
        """
        name = type(self).__name__
        if self.needs_labels and batch.target is None:
            raise ValueError(f"{name} needs labels, and this transfer set has none")
        if not self.accepts_mixed_labels and batch.target is not None and batch.target.ndim == 2:
            raise ValueError(f"{name} cannot use mixed labels: switch mixup and cutmix off")
        # bf16 puts 9.6% of error on a KL divergence at T = 4, so no autocast inside a loss
        with torch.autocast(batch.student_logits.device.type, enabled=False):
            return self.compute(_in_float32(batch))

    def compute(self, batch: LossInput) -> Tensor:
        """What a plug-in writes: the loss of a batch whose logits are float32, outside of autocast."""
        raise NotImplementedError


def label_parts(target: Tensor) -> tuple[Tensor, Tensor]:
    """The classes of each label and their shares, for losses that are defined for one class a sample.

    A mixed label stands for its two likeliest classes (mixup and cutmix never mix more), with shares that add up to 1,
    so that `Σ_k share_k · loss(class_k)` is to such a loss what a soft label is to cross-entropy.

    Returns:
        Class ids N×K and shares N×K (float32); K = 1 for class ids, 2 for class probabilities.
    """
    if target.ndim == 1:
        return target[:, None], torch.ones(len(target), 1, device=target.device)
    shares_NK, classes_NK = target.float().topk(min(2, target.shape[1]))
    return classes_NK, shares_NK / shares_NK.sum(1, keepdim=True)


def positive(name: str, value: float) -> float:
    """`value`, if it is a finite number above 0 (`ValueError` otherwise)."""
    if non_negative(name, value) == 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return float(value)


def non_negative(name: str, value: float) -> float:
    """`value`, if it is a finite number of at least 0 (`ValueError` otherwise)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number, not below 0, got {value!r}")
    return float(value)


def _in_float32(batch: LossInput) -> LossInput:
    """Logits and soft labels in float32, the teacher's cut off from the graph; features are left as they are."""
    mixed = batch.target is not None and batch.target.is_floating_point()
    return replace(
        batch,
        student_logits=batch.student_logits.float(),
        teacher_logits=batch.teacher_logits.detach().float(),
        target=batch.target.float() if mixed and batch.target is not None else batch.target,
    )
