"""A frozen teacher: a network that only answers, so everything that training needs is taken out of it.

Three routes, each checked against the plain network in float32 before it is used, first in the run's precision and, if
none fits there, in float32:

- `plain`: the network as it is, under autocast;
- `folded`: BatchNorm folded into the layers before it, weights cast once to the run's precision;
- `folded+compiled`: the same through torch.compile with frozen weights, for batches of the example's shape.

Paths of modules are the same in all of them, so hooks for features can be put on `FrozenTeacher.network`. A folded
BatchNorm gives what its activation gives; the convolution before it gives what the BatchNorm gave. Hooks do not run on
the compiled route, and `fold=False` keeps every layer as it was.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import os
import shutil
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdprune.teachers.folding import fold_batchnorms

_log = logging.getLogger(__name__)

Route = Literal["plain", "folded", "folded+compiled"]
ERROR_LIMIT = 0.02
"""Largest relative error of the logits at which a route is taken; bfloat16 alone makes about 0.003."""


class FrozenTeacher:
    """Images to logits, without gradients, in evaluation mode for ever.

    It is no module, so that nothing which walks over modules (optimizers, moving averages, DDP, `state_dict`,
    `.train()`, `.to()`) can reach the network, even if a student keeps it as an attribute.

    Attributes:
        network: evaluates the logits; hooks for features go on it.
        route: how the logits are computed.
        relative_error: ‖logits − plain float32 logits‖ / ‖plain float32 logits‖ on the example.
    """

    def __init__(self, network: nn.Module, *, device: torch.device, dtype: torch.dtype, route: Route) -> None:
        self.network = network.eval().requires_grad_(False)
        self.device = device
        self.dtype = dtype
        self.route: Route = route
        self.relative_error = 0.0
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in network.modules())
        self._compiled: tuple[Callable[[Tensor], Tensor], torch.Size] | None = None

    @torch.no_grad()
    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Logits [N, num_classes] in float32, in which softmax and losses belong. Needs no autocast around it."""
        autocast = self.route == "plain" and self.dtype != torch.float32
        images = images_NCHW.to(self.device, torch.float32 if self.route == "plain" else self.dtype)
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.dtype if autocast else None, enabled=autocast):
            return self._engine(images.shape)(images).float()

    def compile_for(self, example_NCHW: Tensor) -> None:
        """Use a compiled network for batches of this shape; others, such as a last one, never wait for a compiler."""
        from torch._inductor import config  # slow to import, and most runs do without

        network: Any = torch.compile(self.network, dynamic=False)
        self._compiled = (network, example_NCHW.shape)
        self.route = "folded+compiled"
        # Weights become constants only if Dynamo knows it, too, and options={"freezing": True} does not reach it.
        with config.patch(freezing=True):
            self(example_NCHW)

    def _engine(self, shape: torch.Size) -> Callable[[Tensor], Tensor]:
        if self._compiled is not None and shape == self._compiled[1]:
            return self._compiled[0]
        return self.network


def freeze(
    model: nn.Module,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    example: Tensor,
    compile: bool | Literal["auto"] = False,
    fold: bool = True,
    batch_size: int | None = None,
    name: str = "",
    known: tuple[str, str] | None = None,
) -> FrozenTeacher:
    """The fastest teacher that gives the model's logits within 2%; in float32 if none in the run's precision does.

    The model itself is left as it is.

    Args:
        model: a classifier, [N, C, H, W] → [N, num_classes].
        dtype: precision of the run: float32, bfloat16 or float16.
        example: normalised images, best real ones.
        compile: with torch.compile; 'auto' where a compiler is found. Takes from seconds to a minute or two.
        fold: False for the plain route.
        batch_size: images in the batches that will be asked most, the only ones that a compiled network serves;
            None for as many as in the example.
        name: of the teacher, for messages.
        known: route and precision that were found for this model before, which are then taken without a comparison. A
            network that is to be compiled is compared all the same, since a compiler is no part of the model.
    """
    device = torch.device(device)
    if known is not None and not compile and (teacher := _of_known(model, device, *known, example)) is not None:
        if teacher.dtype != dtype:
            _log.warning("teacher %s: its logits do not bear %s (measured before): it runs in %s, which is slower",
                         name or type(model).__name__, short(dtype), short(teacher.dtype))  # fmt: skip
        return teacher
    example = _batch_of(example, batch_size).to(device, torch.float32)
    network = _copied(model, device)
    exact = FrozenTeacher(network, device=device, dtype=torch.float32, route="plain")
    reference = exact(example)
    compile = can_compile(device) if compile == "auto" else compile
    for precision in dict.fromkeys((dtype, torch.float32)):
        teacher = _folded(model, device, precision, example) if fold else None
        if teacher is not None and _agrees(teacher, example, reference):
            return _compiled(teacher, example, reference) if compile else teacher
        plain = FrozenTeacher(network, device=device, dtype=precision, route="plain")
        if _agrees(plain, example, reference):
            return plain
        if precision != torch.float32:
            _log.warning(
                "teacher %s: its logits in %s are off by %.2g of those in float32, and allowed is %g: it runs in "
                "float32, which is slower",
                *(name or type(model).__name__, short(precision), plain.relative_error, ERROR_LIMIT),
            )
    return exact


def _of_known(
    model: nn.Module, device: torch.device, route: str, precision: str, example: Tensor
) -> FrozenTeacher | None:
    """The teacher of a route and a precision; None where its BatchNorm cannot be folded any more."""
    dtype: torch.dtype = getattr(torch, precision)
    if route == "folded":
        return _folded(model, device, dtype, example.to(device, torch.float32))
    return FrozenTeacher(_copied(model, device), device=device, dtype=dtype, route="plain")


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: Triton for a GPU, a C++ compiler for the CPU."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def _batch_of(example: Tensor, batch_size: int | None) -> Tensor:
    if batch_size is None:
        return example
    return example.repeat(-(-batch_size // len(example)), *[1] * (example.ndim - 1))[:batch_size]


def _copied(model: nn.Module, device: torch.device) -> nn.Module:
    network = copy.deepcopy(model).to(device, torch.float32).eval()
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network


def _folded(model: nn.Module, device: torch.device, dtype: torch.dtype, example: Tensor) -> FrozenTeacher | None:
    """A folded copy in the run's precision; None where there is nothing to fold or it fails."""
    network = _copied(model, device)
    try:
        with torch.autocast(device.type, enabled=False):
            folded, total = fold_batchnorms(network, example[:2])
    except Exception as error:  # any model may come here; one that resists is used as it is
        _log.warning("teacher: BatchNorm cannot be folded (%s); using the plain network", error)
        return None
    _log.info("teacher: %d of %d BatchNorm layers folded", folded, total)
    if not folded:
        return None
    _cast(network, dtype)
    return FrozenTeacher(network, device=device, dtype=dtype, route="folded")


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast all weights but those of the BatchNorms that are left: their variances need float32."""
    for module in network.modules():
        if not isinstance(module, _BatchNorm):
            module._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, recurse=False)


def _compiled(teacher: FrozenTeacher, example: Tensor, reference: Tensor) -> FrozenTeacher:
    """The teacher with a compiled network, or as it was where compiling fails or changes the logits."""
    compiled = FrozenTeacher(teacher.network, device=teacher.device, dtype=teacher.dtype, route="folded")
    try:
        compiled.compile_for(example)
    except Exception as error:  # whatever a compiler meets; it costs speed only
        _log.warning("teacher: torch.compile fails (%s); using the folded network", _first_line(error))
        return teacher
    return compiled if _agrees(compiled, example, reference) else teacher


def _agrees(teacher: FrozenTeacher, example: Tensor, reference: Tensor) -> bool:
    """Measure and log the teacher's error; whether it is small enough to be used."""
    try:
        error = (teacher(example) - reference).norm() / reference.norm().clamp(min=torch.finfo(torch.float32).tiny)
        teacher.relative_error = error.item()
    except RuntimeError as failure:  # an operation that does not know this precision
        teacher.relative_error = math.inf
        _log.warning("teacher: the %s route fails (%s); not used", teacher.route, _first_line(failure))
        return False
    fits = teacher.relative_error <= ERROR_LIMIT  # False for NaN, too
    level = logging.INFO if fits else logging.WARNING
    verdict = "" if fits else f", above {ERROR_LIMIT:.0%}: not used"
    _log.log(
        level, "teacher: %s, %s, logits off by %.2g%s", teacher.route, teacher.dtype, teacher.relative_error, verdict
    )
    return fits


def short(precision: torch.dtype) -> str:
    """float32, bfloat16 or float16."""
    return str(precision).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
