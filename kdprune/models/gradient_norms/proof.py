"""A plan is believed once it has reproduced the loop over samples, parameter by parameter.

The probe has three samples of the first batch, whose losses are weighted 1, 2 and 3, so that even equal images cannot
stand for each other, and parameters that are moved a little, so that no branch is closed by a scale of zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdprune.models.gradient_norms.backward import backward
from kdprune.models.gradient_norms.graph import trace
from kdprune.models.gradient_norms.loop import Losses, loop
from kdprune.models.gradient_norms.plan import Group, Plan, make_plan


@dataclass(frozen=True)
class Tolerance:
    """Of norms: relative to the norm itself, and to that of all parameters together."""

    relative: float
    absolute: float


FLOAT32 = Tolerance(2e-3, 1e-5)
TENSOR_FLOAT = Tolerance(3e-2, 2e-3)  # what a GPU may use where float32 is asked for
BFLOAT16 = Tolerance(1e-1, 2e-2)


def proven_plan(losses: Losses, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Plan | None:
    """The plan for these losses, without the groups that it does not get right; None if there is none.

    Raises:
        ValueError: the loss of a sample depends on the others.
    """
    tolerance = _tolerance(inputs, parameters)
    chosen = torch.arange(3, device=inputs.device) % len(inputs)
    inputs, targets = inputs[chosen], targets[chosen]
    alone, squares = loop(losses, parameters, inputs, targets)
    together = losses(inputs, targets)
    if not torch.allclose(together.detach(), alone, rtol=10 * tolerance.relative, atol=10 * tolerance.relative):
        raise ValueError(
            "the model mixes the samples of a batch, so that a sample has no gradient of its own: "
            f"losses {together.tolist()} together, {alone.tolist()} one by one"
        )
    graph = trace(together, parameters)
    plan = make_plan(trace(losses(inputs[:2], targets[:2]), parameters), graph)
    if plan is None:
        return None
    weights = torch.arange(1.0, 4.0, device=inputs.device, dtype=together.dtype)
    expected = {name: value.sqrt() * weights for name, value in squares.items()}
    for _ in range(2):
        measured = backward(together, weights, graph, plan)
        wrong = _wrong(plan, expected, measured, tolerance)
        if not wrong:
            break
        plan = plan.minor(plan.consumers_of(wrong))
        together = losses(inputs, targets)
        graph = trace(together, parameters)
    return plan.without(wrong | _dark(plan, expected, measured, tolerance))


def moved(parameter: Tensor) -> Tensor:
    """A parameter moved by a tenth of its size, or by a tenth as such where it is nearly zero."""
    p = parameter.detach()
    pattern = torch.arange(p.numel(), device=p.device, dtype=torch.float32).mul_(2.4).cos_().view(p.shape)
    size = p.float().square().mean().sqrt()
    fan_in = p[0].numel() if p.ndim > 1 else 1
    step = torch.where(size > 1e-2, size, fan_in**-0.5) * 0.1
    return (p + (pattern * step).to(p.dtype)).requires_grad_()


def _wrong(plan: Plan, expected: dict[str, Tensor], measured: dict[str, Tensor], tolerance: Tolerance) -> set[Group]:
    """The groups that miss the norms of one of their parameters."""
    absolute = tolerance.absolute * torch.stack(list(expected.values())).square().sum(0).sqrt()
    return {
        group
        for group in plan.groups
        if any(_missed(name, expected, measured, tolerance.relative, absolute) for name in group.parameters)
    }


def _dark(plan: Plan, expected: dict[str, Tensor], measured: dict[str, Tensor], tolerance: Tolerance) -> set[Group]:
    """The groups of which the probe shows too little to tell how samples lie in their consumers, or without a layout.

    With several rows a sample, one parameter there must agree by itself: a gradient that is zero agrees with anything.
    """
    zero = torch.zeros(())
    seen = {
        group
        for group in plan.groups
        if any(
            not _missed(name, expected, measured, tolerance.relative, zero) and bool((expected[name] > 0).all())
            for name in group.parameters
        )
    }
    dark = set()
    for consumer in plan.consumers:
        groups = {plan.group_of(used) for _, used in consumer.slots}
        if consumer.layout is None or (consumer.layout.rows > 1 and not groups & seen):
            dark |= groups
    return dark


def _missed(
    name: str, expected: dict[str, Tensor], measured: dict[str, Tensor], relative: float, absolute: Tensor
) -> bool:
    norm = measured[name].clamp_min(0).sqrt() if name in measured else torch.zeros_like(expected[name])
    allowed = relative * expected[name] + absolute.to(norm.device)
    return not bool(((norm - expected[name]).abs() <= allowed).all())


def _tolerance(inputs: Tensor, parameters: Mapping[str, Tensor]) -> Tolerance:
    low = any(p.dtype in (torch.bfloat16, torch.float16) for p in parameters.values())
    if low or torch.is_autocast_enabled(inputs.device.type):
        return BFLOAT16
    return FLOAT32 if inputs.device.type == "cpu" else TENSOR_FLOAT
