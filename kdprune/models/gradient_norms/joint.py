"""Parameters that are used more than once, or not as they are: per-example gradients of these alone.

Tied weights, a module called twice, standardised convolution weights, tables of relative positions, low-rank updates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from kdprune.models.gradient_norms.graph import Graph
from kdprune.models.gradient_norms.plan import Group, Used
from kdprune.models.gradient_norms.uses import Use, spans, squared_norms

Uses = list[tuple[Used, Use]]


def joint_squares(graph: Graph, group: Group, uses: Uses, samples: int) -> dict[str, Tensor]:
    """Squared norms of a group by parameter: the gradients of all uses are added up before they are squared."""
    leaves = {i: name for i, name in graph.topology.parameters if name in group.parameters}
    parameters = {i: graph.nodes[i].variable for i in leaves}  # type: ignore[attr-defined]
    elements = sum(p.numel() for p in parameters.values())
    elements += sum(torch.Size(used.shape).numel() for used, _ in uses)
    squares: dict[int, list[Tensor]] = {i: [] for i in leaves}
    for first, end in spans(samples, elements):
        of_used = _added_up(uses, first, end)
        of_leaves = {used.node: gradient for used, gradient in of_used.items() if used.node in leaves}
        derived = {used: gradient for used, gradient in of_used.items() if used.node not in leaves}
        for (i, _), gradient in zip(
            parameters.items(), _pulled_back(graph, derived, list(parameters.values())), strict=True
        ):
            parts = [part for part in (of_leaves.get(i), gradient) if part is not None]
            if parts:
                squares[i].append(squared_norms(torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]))
    return {leaves[i]: torch.cat(parts) for i, parts in squares.items() if parts}


def _added_up(uses: Uses, first: int, end: int) -> dict[Used, Tensor]:
    totals: dict[Used, Tensor] = {}
    for used, use in uses:
        gradients = use.gradients(first, end)
        totals[used] = totals[used] + gradients if used in totals else gradients
    return totals


def _pulled_back(graph: Graph, derived: dict[Used, Tensor], parameters: list[Tensor]) -> list[Tensor | None]:
    """Per-example gradients of the parameters from those of the tensors that are made of them."""
    if not derived:
        return [None] * len(parameters)
    edges, gradients = [], []
    for used, gradient in derived.items():
        node = graph.nodes[used.node]
        edges.append(GradientEdge(node, used.output))
        gradients.append(gradient.to(node._input_metadata[used.output].dtype))
    pulled_back = torch.autograd.grad(
        edges, parameters, gradients, retain_graph=True, allow_unused=True, is_grads_batched=True
    )
    return list(pulled_back)
