"""Exact per-example gradient norms over all parameters of a model, at about the cost of a training step.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from kdprune.messages import listed
from kdprune.models.gradient_norms.backward import backward
from kdprune.models.gradient_norms.graph import Topology, trace
from kdprune.models.gradient_norms.loop import loop
from kdprune.models.gradient_norms.plan import Plan
from kdprune.models.gradient_norms.proof import moved, proven_plan

Loss = Callable[[Tensor, Tensor], Tensor]  # what the model puts out, targets → losses N


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """The cross-entropy of each sample, in float32 or better."""
    return F.cross_entropy(
        logits_NC.to(torch.promote_types(logits_NC.dtype, torch.float32)), labels_N, reduction="none"
    )


class GradientNorms:
    """‖∂loss/∂θ‖₂ of each sample, over all parameters that require a gradient (GraNd: Paul et al. 2021, eq. 2).

    The losses of a batch are added, never averaged, and backpropagated once; norms come from closed forms of what each
    layer saw ("ghost norms": Goodfellow 2015, Li et al. 2022), so that no per-example gradient of the model is held.
    Where parameters are used is read from autograd's graph, not from the modules. On three samples of the first batch
    of each topology, the norms are compared with a loop over samples, parameter by parameter; those that a closed form
    gets wrong are looped over from then on, with a warning.

    Args:
        model: in eval mode: BatchNorm with the statistics that it has stored, no dropout.
        loss: the losses N of a batch.
    """

    def __init__(self, model: nn.Module, loss: Loss = cross_entropy) -> None:
        self.model = model
        self.loss = loss
        self._plans: dict[Topology, Plan | None] = {}

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Norms N of a batch, in float32, or in float64 for a model in float64.

        Raises:
            ValueError: a model in training mode, or one that mixes samples; no parameter to differentiate; a loss that
                is not one number a sample.
        """
        _check_mode(self.model)
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not parameters:
            raise ValueError("the model has no parameter that requires a gradient")
        try:
            with torch.enable_grad():
                return self._squares(inputs.detach(), targets, parameters).clamp_min(0).sqrt()
        finally:
            _forget(self.model)

    def _squares(self, inputs: Tensor, targets: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        if len(inputs) == 1:  # not by itself: see `loop`
            return self._squares(inputs[[0, 0]], targets[[0, 0]], parameters)[:1]
        losses = self._losses(inputs, targets)
        if losses.grad_fn is None:
            return torch.zeros_like(losses)
        graph = trace(losses, parameters)
        if graph.topology not in self._plans:
            self._plans[graph.topology] = self._plan(inputs, targets, parameters, graph.topology)
        plan = self._plans[graph.topology]
        squares: dict[str, Tensor] = {}
        if plan is not None:
            with torch.autocast(inputs.device.type, enabled=False):
                squares = backward(losses, torch.ones_like(losses), graph, plan)
        looped = {name: p for name, p in parameters.items() if plan is None or name in plan.left_out}
        if looped:
            squares |= loop(self._losses, looped, inputs, targets)[1]
        return _total(squares, losses)

    def _plan(
        self, inputs: Tensor, targets: Tensor, parameters: Mapping[str, Tensor], topology: Topology
    ) -> Plan | None:
        probed = {name: moved(p) for name, p in parameters.items()}

        def losses(inputs: Tensor, targets: Tensor) -> Tensor:
            _forget(self.model)
            return _checked(self.loss(functional_call(self.model, probed, (inputs,)), targets), inputs)

        plan = proven_plan(losses, probed, inputs, targets)
        if plan is None or plan.topology != topology:
            _warn(type(self.model).__name__, "all parameters", "computes in another way for another batch size")
            return None
        if plan.left_out:
            _warn(type(self.model).__name__, listed(plan.left_out), "uses them in a way that has no closed form")
        return plan

    def _losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        _forget(self.model)
        return _checked(self.loss(self.model(inputs), targets), inputs)


def _forget(model: nn.Module) -> None:
    """Empty what timm's LeViT and its like keep of their parameters in eval mode, with the graph of an earlier pass."""
    for module in model.modules():
        cache = getattr(module, "attention_bias_cache", None)
        if isinstance(cache, dict):
            cache.clear()


def _checked(losses: Tensor, inputs: Tensor) -> Tensor:
    if losses.shape != (len(inputs),):
        raise ValueError(f"the loss must be one number a sample: {len(inputs)} samples, losses {tuple(losses.shape)}")
    return losses


def _check_mode(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"{path or 'the model'} ({type(module).__name__}) would normalise with the statistics of the batch, "
                "and a sample in it has no gradient of its own: it needs stored statistics and eval mode (model.eval())"
            )
    for path, module in model.named_modules():
        if module.training:
            raise ValueError(f"{path or 'the model'} ({type(module).__name__}) is in training mode: call model.eval()")


def _total(squares: dict[str, Tensor], like: Tensor) -> Tensor:
    if not squares:
        return torch.zeros(len(like), device=like.device)
    return torch.stack(list(squares.values())).sum(0)


def _warn(model: str, names: str, why: str) -> None:
    warnings.warn(f"per-example gradient norms of {names} take one backward pass a sample: {model} {why}", stacklevel=5)
