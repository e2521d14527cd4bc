"""A network as pruners see it: weights, and derivatives of the loss by them, in float64.

The loss is the mean cross-entropy of samples that the caller chose, in training mode: BatchNorm normalises each part of
them by its own mean and variance. The parts are the caller's, too, and depend on nothing but the samples, so a score
depends neither on the batch of the training nor on the number of its processes. In float64 the order of sums decides
nothing that could be seen in float32.

Shapes: N samples of a part, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdprune.data.counter import key

Tensors = dict[str, Tensor]
Parts = Iterable[tuple[Tensor, Tensor]]
"""Samples in parts: images as the model wants them, and labels, int64 N."""


class Network:
    """A copy of a model, with zeros for what is pruned already.

    Args:
        model: left as it is.
        names: of its prunable weights.
        input_shape: channels, height and width of its images.
        samples: gives the parts of so many samples a class; None where there are none with labels.
        seed: of what a pruner draws.
        device: where to compute; one without float64 is not used.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        input_shape: tuple[int, int, int],
        samples: Callable[[int], Parts] | None = None,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        device = torch.device("cpu") if device is None or device.type == "mps" else device
        self._model = copy.deepcopy(model).to(device, torch.float64).requires_grad_(False)
        parameters = dict(self._model.named_parameters())
        self._weights = {name: parameters[name].requires_grad_() for name in names}
        self._samples, self.input_shape, self.seed = samples, input_shape, seed

    @property
    def weights(self) -> Tensors:
        """The prunable weights by name, in the model's order, float64."""
        return {name: weight.detach() for name, weight in self._weights.items()}

    @torch.no_grad()
    def keep(self, kept: Mapping[str, Tensor]) -> None:
        """Set all other weights to zero."""
        for name, weight in self._weights.items():
            weight.masked_fill_(~kept[name].to(weight.device), 0)

    def gradients(self, per_class: int, temperature: float = 1.0) -> Tensors:
        """∂L/∂w of the mean loss L over the samples.

        Args:
            per_class: how many samples of each class.
            temperature: that logits are divided by.
        """
        return self._mean_over_parts(self._derivatives, per_class, temperature)

    def hessian_gradients(self, per_class: int, temperature: float = 1.0) -> Tensors:
        """H·g: the Hessian of that loss by the prunable weights, times its gradient g by them.

        It is the derivative of gᵀ·(∂L/∂w) by w with g held fixed (Pearlmutter 1994), part by part.
        """
        fixed = self.gradients(per_class, temperature)

        def product(loss: Tensor) -> Tensors:
            gradients = self._derivatives(loss, create_graph=True)
            return self._derivatives(sum((gradients[name] * fixed[name]).sum() for name in fixed))  # type: ignore[arg-type]

        return self._mean_over_parts(product, per_class, temperature)

    def flow_gradients(self) -> Tensors:
        """∂R/∂|w|, where R is the sum of the outputs for an image of ones and every parameter is its absolute value.

        In evaluation mode, so that BatchNorm multiplies and adds and normalises nothing (Tanaka et al. 2020, §6).
        """
        signs = {name: parameter.sign() for name, parameter in self._model.named_parameters()}
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.abs_()
        try:
            flow = self._model.eval()(next(iter(self._weights.values())).new_ones(1, *self.input_shape)).sum()
            return self._derivatives(flow)
        finally:
            with torch.no_grad():
                for name, parameter in self._model.named_parameters():
                    parameter.mul_(signs[name])

    def _mean_over_parts(self, of: Callable[[Tensor], Tensors], per_class: int, temperature: float) -> Tensors:
        """A linear function of the loss, for the mean loss over all samples."""
        if self._samples is None:
            raise ValueError("there are no samples with labels, and this pruner needs some")
        device = next(iter(self._weights.values())).device
        total, count = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}, 0
        with self._training(device):
            for part, (images, labels_N) in enumerate(self._samples(per_class)):
                torch.manual_seed(key(self.seed, "pruner dropout", part))
                logits_NC = self._model(images.to(device, torch.float64)) / temperature
                loss = F.cross_entropy(logits_NC, labels_N.to(device), reduction="sum")
                for name, value in of(loss).items():
                    total[name] += value
                count += len(labels_N)
        return {name: value / count for name, value in total.items()}

    def _derivatives(self, value: Tensor, create_graph: bool = False) -> Tensors:
        weights = list(self._weights.values())
        found = torch.autograd.grad(
            value, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return dict(zip(self._weights, found, strict=True))

    @contextmanager
    def _training(self, device: torch.device) -> Iterator[None]:
        """In training mode, which leaves neither running statistics nor a random generator changed."""
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        self._model.train()
        devices = [device] if device.type == "cuda" else []
        # Other kernels of attention have no second derivative.
        with torch.enable_grad(), torch.random.fork_rng(devices), sdpa_kernel(SDPBackend.MATH):
            yield
        for name, buffer in self._model.named_buffers():
            buffer.copy_(buffers[name])
