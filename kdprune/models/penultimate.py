"""The pooled features that a model's classifier reads.

Shapes: N samples, C classes, H features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Penultimate:
    """Hooks on a model; after a forward pass, `taken()` gives the features h of its logits W·h + b.

    They cost nothing beside the pass: they are what the classifier read, not a second computation, so that the head's
    own pooling, norm and hidden layers are in them.

    Attributes:
        classifier: the linear layer, or a 1×1 convolution that stands for one.
        path: its path in the model.

    Raises:
        ValueError: a model with several classifiers or none; on its first pass, one whose logits are not what that
            layer puts out.
    """

    def __init__(self, model: nn.Module) -> None:
        self.classifier = _classifier(model)
        self.path = next(path for path, module in model.named_modules() if module is self.classifier)
        self._passes: list[tuple[Tensor, Tensor]] = []  # inputs and outputs of the classifier in this forward pass
        self._features: Tensor | None = None
        self._proven = False
        self._handles = [
            model.register_forward_pre_hook(self._start),
            self.classifier.register_forward_hook(self._keep),
            model.register_forward_hook(self._end),
        ]

    def taken(self) -> Tensor:
        """The features N×H of the last forward pass; they are handed over, not kept."""
        features, self._features = self._features, None
        assert features is not None, "no forward pass since the features were taken"
        return features

    def close(self) -> None:
        """Take the hooks off: the model may serve others."""
        for handle in self._handles:
            handle.remove()

    def _start(self, model: nn.Module, inputs: Any) -> None:
        self._passes.clear()

    def _keep(self, classifier: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._passes.append((inputs[0].detach(), output.detach()))

    def _end(self, model: nn.Module, inputs: Any, output: Any) -> None:
        passes = list(self._passes)
        self._passes.clear()
        if not self._proven and not (len(passes) == 1 and _same(output, passes[0][1])):
            raise ValueError(
                f"the logits of {type(model).__name__} are not what its layer {self.path!r} puts out for one row of "
                "features a sample: they have no penultimate features"
            )
        self._proven = True
        self._features = passes[0][0].flatten(1)


def _classifier(model: nn.Module) -> nn.Module:
    get_classifier: Any = getattr(model, "get_classifier", lambda: model)
    head = get_classifier()
    name = type(model).__name__
    if isinstance(head, tuple | list | nn.ModuleList):
        kinds = ", ".join(type(part).__name__ for part in head)
        raise ValueError(
            f"{name} has {len(head)} classifiers ({kinds}): penultimate features need one linear classifier"
        )
    layers = [part for part in head.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(
            f"the classifier of {name} is {type(head).__name__}, without a linear layer: give it classes (num_classes)"
        )
    return layers[-1]


def _same(output: Any, logits: Tensor) -> bool:
    """Whether a model put out what its classifier did, but for its type and for dimensions of one."""
    if not isinstance(output, Tensor) or output.ndim != 2 or output.numel() != logits.numel():
        return False
    return torch.equal(output.detach().float(), logits.reshape(output.shape).float())
