"""The interface of a distillation loss: the batch it reads and the module it is.

Shapes: N samples of the batch, C classes, K classes mixed into one label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor, nn

from kdprune.losses.common.reduction import Reduction


@dataclass
class LossInput:
    """One batch as a loss reads it. Logits have the models' floating-point type; losses compute in float32.

    Attributes:
        student_logits: N×C.
        teacher_logits: N×C, without gradient. An ensemble counts as one teacher, whose softmax at the run's temperature
            is the members' average (see `kdprune.teachers.ensemble`).
        labels: int64 N (class ids), or float N×C (class probabilities, under mixup or cutmix), or None where the
            transfer set has no labels.
        sample_ids: int64 N, indices into the unpruned training set, on the device.
        student_features, teacher_features: outputs of layers by module path; empty unless the loss asks for them.
        weights: float N, one weight a sample; the loss is then mean_n(weight_n · loss_n). None, the plain mean, is
            the same as weights of 1.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor | None = None
    sample_ids: Tensor | None = None
    student_features: dict[str, Tensor] = field(default_factory=dict)
    teacher_features: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None


class DistillLoss(nn.Module):
    """A distillation loss. It is a module because some losses have parameters that train with the student.

    A plug-in writes `per_sample`; or `compute`, where the loss is `relational`; or both, where the loss of the whole
    batch is better computed at once than as the mean of `per_sample`. The trainer calls `forward`.

    The trainer constructs a loss, lets it `check` the data, `build`s it on example features if it `needs_features`,
    hands its parameters to the optimizer and then calls it once a step.

    Attributes:
        needs_labels: `labels` may not be None.
        needs_features: the trainer must record `layers` and call `build` before it makes the optimizer.
        needs_all_logits: the teacher's k largest logits and the probability mass of the others are not enough.
        accepts_mixed_labels: `labels` may be N×C.
        relational: there is no loss of a single sample, because samples are compared with each other. Such a loss
            refuses weights.
        min_classes: with fewer classes the loss teaches nothing.
        layers: pairs (student module path, teacher module path) whose outputs the loss reads.
    """

    needs_labels: bool = False
    needs_features: bool = False
    needs_all_logits: bool = False
    accepts_mixed_labels: bool = True
    relational: bool = False
    min_classes: int = 1
    layers: tuple[tuple[str, str], ...] = ()

    def __init__(self) -> None:  # nn.Module accepts any arguments here; a loss accepts only those that it declares
        super().__init__()

    def check(self, num_classes: int) -> None:
        """Refuse data that this loss cannot learn from (`ValueError`), before the first step."""
        if num_classes < self.min_classes:
            name = type(self).__name__
            raise ValueError(f"{name} needs at least {self.min_classes} classes, the data has {num_classes}")

    def check_labels(self, labels: Tensor | None) -> None:
        """Refuse missing or mixed labels (`ValueError`) where this loss cannot use them."""
        name = type(self).__name__
        if self.needs_labels and labels is None:
            raise ValueError(f"{name} needs labels, and this transfer set has none")
        if not self.accepts_mixed_labels and labels is not None and labels.ndim == 2:
            raise ValueError(f"{name} cannot use mixed labels: switch mixup and cutmix off")

    def temperatures(self) -> tuple[float, ...]:
        """The temperatures at which the loss takes the teacher's softmax: its `temperature`, if it has one."""
        temperature = getattr(self, "temperature", None)
        return () if temperature is None else (temperature,)

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        """Create the parameters whose shapes depend on the features, from the features of any one batch."""

    def forward(self, batch: LossInput, *, reduction: Reduction = "mean") -> Tensor:
        """The loss of a batch, a float32 scalar: the mean over its samples, weighted if the batch has weights.

        Args:
            reduction: "none" for the loss of each sample instead, float32 N, before its weight.

        Raises:
            ValueError: missing or mixed labels that this loss cannot use, or weights or no reduction where it is
                relational.
        """
        self.check_labels(batch.labels)
        # bf16 puts an error of 9.6% on a KL divergence at T = 4, so autocast is off inside a loss
        with torch.autocast(batch.student_logits.device.type, enabled=False):
            batch = _in_float32(batch)
            if reduction == "none":
                return self.per_sample(batch)
            if batch.weights is None:
                return self.compute(batch)
            return (batch.weights * self.per_sample(batch)).mean()

    def compute(self, batch: LossInput) -> Tensor:
        """The unweighted loss of a batch whose logits are float32, called outside of autocast."""
        return self.per_sample(batch).mean()

    def per_sample(self, batch: LossInput) -> Tensor:
        """The loss of each sample, float32 N, of a batch as in `compute`; its mean is `compute` up to rounding.

        Raises:
            ValueError: the loss of a single sample is not defined.
        """
        name = type(self).__name__
        why = "compares samples with each other" if self.relational else "does not define `per_sample`"
        raise ValueError(f"{name} {why}, so it has no loss of a single sample and cannot weight samples")


def label_parts(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Split labels into classes and their shares, for losses that are defined for one class a sample.

    Such a loss of a mixed label is `Σ_k share_k · loss(class_k)`, as cross-entropy's is. Mixup and cutmix mix two
    classes at most, so the two likeliest are taken, with shares that add up to 1.

    Returns:
        Class ids N×K and shares N×K (float32); K = 1 for class ids, 2 for class probabilities.
    """
    if labels.ndim == 1:
        return labels[:, None], torch.ones(len(labels), 1, device=labels.device)
    shares_NK, classes_NK = labels.float().topk(min(2, labels.shape[1]))
    return classes_NK, shares_NK / shares_NK.sum(1, keepdim=True)


def positive(name: str, value: float) -> float:
    """`value`, if it is a finite number above 0 (`ValueError` otherwise)."""
    if non_negative(name, value) == 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return float(value)


def non_negative(name: str, value: float) -> float:
    """`value`, if it is a finite number of at least 0 (`ValueError` otherwise)."""
    # bool is a Real, but `temperature=True` is a mistake
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number, not below 0, got {value!r}")
    return float(value)


def _in_float32(batch: LossInput) -> LossInput:
    """Cast logits, soft labels and weights to float32 and detach the teacher's logits. Features stay as they are."""
    labels, weights = batch.labels, batch.weights
    if weights is not None and weights.shape != batch.student_logits.shape[:1]:
        # N×1 would broadcast against N to N×N without an error
        raise ValueError(f"weights must be one for each of the {len(batch.student_logits)} samples, "
                         f"got shape {tuple(weights.shape)}")  # fmt: skip
    return replace(
        batch,
        student_logits=batch.student_logits.float(),
        teacher_logits=batch.teacher_logits.detach().float(),
        labels=labels.float() if labels is not None and labels.is_floating_point() else labels,
        weights=None if weights is None else weights.float(),
    )
