"""A loss expression as one module: the weighted sum of its terms.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.losses.common.expression import OPTION, Expression, Term, parse
from kdprune.messages import about

Layers = Sequence[tuple[str, str]]


class WeightedSum(DistillLoss):
    """Σ weight·loss. It needs what any of its terms needs, and cannot do what one of them cannot.

    Args:
        terms: what to add up.
        temperature: the run's, for every loss that takes a `temperature` and whose term does not give one.
        layers: the run's pairs of layers, likewise for every loss that takes `layers`.
    """

    def __init__(self, terms: Sequence[Term], temperature: float, layers: Layers = ()) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(_make(term, {"temperature": temperature, "layers": layers}) for term in terms)
        self.needs_labels = any(loss.needs_labels for loss in self._each())
        self.needs_features = any(loss.needs_features for loss in self._each())
        self.accepts_mixed_labels = all(loss.accepts_mixed_labels for loss in self._each())
        self.relational = any(loss.relational for loss in self._each())
        self.layers = tuple(dict.fromkeys(pair for loss in self._each() for pair in loss.layers))

    def check(self, num_classes: int) -> None:
        for loss in self._each():
            loss.check(num_classes)

    def check_labels(self, labels: Tensor | None) -> None:
        for loss in self._each():
            loss.check_labels(labels)

    def check_targets(self, temperature: float, top_k: bool, several: bool) -> None:
        """Refuse losses that need more of the teacher than its probabilities at the run's temperature.

        Args:
            temperature: the run's.
            top_k: the targets are rebuilt from the k largest logits.
            several: the targets are the mean of several teachers' probabilities.

        Raises:
            ValueError: a loss that compares all logits, or probabilities at another temperature.
        """
        for term, loss in zip(self.terms, self._each(), strict=True):
            if top_k and loss.needs_all_logits:
                raise ValueError(f"--teacher.top_k: {term.name} compares all logits; leave --teacher.top_k out")
            for own in loss.temperatures():
                if own == temperature or not (top_k or several):
                    continue
                option, why = (
                    ("--teacher.top_k", "cached targets are rebuilt") if top_k else
                    ("--teacher.models", "the mean of several teachers is taken")
                )  # fmt: skip
                raise ValueError(
                    f"{option}: {why} at --distill.temperature {temperature:g}, and {term.name} reads it at {own:g}; "
                    f"give both the same, or {'leave --teacher.top_k out' if top_k else 'one teacher'}"
                )

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        for loss in self._each():
            loss.build(student_features, teacher_features)

    def compute(self, batch: LossInput) -> Tensor:
        values = [term.weight * loss(batch) for term, loss in zip(self.terms, self._each(), strict=True)]
        return torch.stack(values).sum()

    def per_sample(self, batch: LossInput) -> Tensor:
        values = [term.weight * loss.per_sample(batch) for term, loss in zip(self.terms, self._each(), strict=True)]
        return torch.stack(values).sum(0)

    def _each(self) -> list[DistillLoss]:
        return cast("list[DistillLoss]", list(self.losses))


def build_loss(expression: Expression, temperature: float, layers: Layers = ()) -> WeightedSum:
    """The loss that `expression` writes (see `kdprune.losses.common.expression`).

    Raises:
        ValueError: the expression cannot be read, or names a loss, a parameter or a value that is not allowed.
    """
    with about(OPTION):
        return WeightedSum(parse(expression), temperature, layers)


def _make(term: Term, defaults: Mapping[str, Any]) -> DistillLoss:
    """Construct a term's loss, with the run's values for what the term leaves open."""
    plugin = registry.get("losses", term.name)
    params = bind(Call(term.name, kwargs=term.params), plugin, "loss", defaults=defaults)
    try:
        return cast("DistillLoss", plugin(**params))
    except TypeError as error:  # a value of a type that the loss cannot do with
        raise ValueError(f"loss {term.name}: {error}") from error
