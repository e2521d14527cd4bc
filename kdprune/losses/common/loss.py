"""A loss expression for a training loop of one's own.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from torch import Tensor

from kdprune.losses.common.base import LossInput
from kdprune.losses.common.expression import Expression, parse
from kdprune.losses.common.reduction import Reduction
from kdprune.losses.common.sum import Layers, WeightedSum
from kdprune.messages import about


class Loss(WeightedSum):
    """The distillation loss that an expression writes, as a module.

    A loss with `needs_features` compares layers: it is given a `LossInput` with their outputs, after `build` has seen
    those of a first batch; what `parameters()` then gives goes to the optimizer.

    Args:
        expression: a name such as "dkd", or a weighted sum such as "0.5*kd + dkd(alpha=1, beta=8)"
            ([losses](losses.md), `kdprune list losses`).
        temperature: T of every part that takes one and is not given its own.
        layers: pairs (student module path, teacher module path), for losses between features.

    Raises:
        ValueError: an expression that cannot be read, an unknown loss, a value that is not allowed.

    Example:
        >>> import torch
        >>> from kdprune import losses
        >>> loss = losses.Loss("kd", temperature=2.0)
        >>> teacher_logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss(teacher_logits, teacher_logits).item()
        0.0
    """

    def __init__(self, expression: Expression = "kd", temperature: float = 4.0, layers: Layers = ()) -> None:
        with about("loss"):
            super().__init__(parse(expression), temperature, layers)

    def forward(
        self,
        batch: LossInput | Tensor,
        teacher_logits: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The loss of a batch, a float32 scalar: the mean over its samples.

        Args:
            batch: the student's logits N×C; or a `LossInput`, which holds all of it.
            teacher_logits: N×C; no gradient flows into them.
            labels: class ids N, or class probabilities N×C; for losses that read them.
            weights: of the samples, float N.
            reduction: "none" for the loss of each sample instead, float32 N, before its weight.

        Raises:
            ValueError: labels that the loss needs and was not given, or cannot use.
        """
        if isinstance(batch, LossInput):
            return super().forward(batch, reduction=reduction)
        if teacher_logits is None:
            raise ValueError("loss: the teacher's logits are not given")
        return super().forward(LossInput(batch, teacher_logits, labels, weights=weights), reduction=reduction)

    def __call__(
        self,
        batch: LossInput | Tensor,
        teacher_logits: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """See `forward`."""
        result: Tensor = super().__call__(batch, teacher_logits, labels, weights, reduction=reduction)
        return result
