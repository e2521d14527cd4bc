"""Pruned weights stay zero while a student is trained, whatever its optimizer does.

After every optimizer step all pruned weights are set to zero again, so that neither momentum nor weight decay nor an
optimizer that mixes weights can bring one back; and before it, gradients of pruned weights are set to zero, so that
norms (of gradient clipping, of layer-wise optimizers) are those of the sparse network. Both are a few operations on all
tensors at once, and none of them waits for the device. A moving average reads weights that are zero, and so stays zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Kept = Mapping[str, Tensor]
"""Which weights are kept, bool, by the names of the tensors."""


class Sparse:
    """The pruned weights of a model in training.

    Args:
        model: on its device, in its memory format.
        kept: from the beginning on; None: nothing is pruned yet.
        due: after a step, and whether it was the last one: the sparsity to prune to, or None; None: never.
        decide: which weights to keep of those that are, at a sparsity; gives the same on every process.
        average: a moving average of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        kept: Kept | None,
        due: Callable[[int, bool], float | None] | None = None,
        decide: Callable[[float, Kept | None], Kept] | None = None,
        average: nn.Module | None = None,
    ) -> None:
        self._models = [model] if average is None else [model, average]
        self._due, self._decide = due, decide
        self._weights: list[Tensor] = []
        self._factors: list[Tensor] = []
        self.kept: Kept | None = None
        self._pruned_at = 0  # the last step after which something was due
        if kept is not None:
            self.prune(kept)

    @torch.no_grad()
    def prune(self, kept: Kept) -> None:
        """From now on these weights are kept, and all others are zero."""
        self.kept = kept
        for model in self._models:
            for name, weight in _weights(model, kept).items():
                weight.masked_fill_(~kept[name].to(weight.device), 0)
        self._weights = list(_weights(self._models[0], kept).values())
        # In the type and the memory format of the weights, which multiply fastest.
        self._factors = [torch.empty_like(w).copy_(kept[name]) for name, w in zip(kept, self._weights, strict=True)]

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """To be called before gradients are clipped. Must not wait for the device."""
        pairs = [(w.grad, factor) for w, factor in zip(self._weights, self._factors, strict=True) if w.grad is not None]
        if pairs:
            torch._foreach_mul_([gradient for gradient, _ in pairs], [factor for _, factor in pairs])

    @torch.no_grad()
    def mask_weights(self) -> None:
        """To be called after the optimizer's step. Must not wait for the device."""
        if self._weights:
            torch._foreach_mul_(self._weights, self._factors)
            torch._foreach_add_(self._weights, 0.0)  # -0.0, a negative number times zero, becomes 0.0

    def after_step(self, step: int, done: bool) -> None:
        """Prune, if it is time and was not done: after `step` steps, the last one if `done`."""
        sparsity = None if self._due is None or step == self._pruned_at else self._due(step, done)
        if sparsity is not None:
            assert self._decide is not None
            self.prune(self._decide(sparsity, self.kept))
            self._pruned_at = step

    def state_dict(self) -> dict[str, Any]:
        """What was pruned on the way; what was pruned before the first step stands in the key of the run."""
        return {} if self._due is None or self.kept is None else {"kept": dict(self.kept), "step": self._pruned_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "kept" in state:
            self.prune(state["kept"])
            self._pruned_at = state["step"]


def _weights(model: nn.Module, kept: Kept) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in kept}
