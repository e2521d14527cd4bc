"""One backward pass that leaves per-example squared gradient norms behind, layer by layer.

The engine is asked for the gradients at the deepest uses of parameters only, so that it computes no gradient of a
weight. What a closed form needs is read from a node just before that node runs and frees it: nothing is held longer
than in any backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from kdprune.models.gradient_norms.graph import Graph
from kdprune.models.gradient_norms.joint import joint_squares
from kdprune.models.gradient_norms.plan import Consumer, Group, Plan, Used
from kdprune.models.gradient_norms.rules import use_of
from kdprune.models.gradient_norms.uses import Use


def backward(losses_N: Tensor, weights_N: Tensor, graph: Graph, plan: Plan) -> dict[str, Tensor]:
    """Squared norms of ∂(weight·loss)/∂θ of each sample, by the name of θ; without those that no gradient reaches."""
    uses = _Uses(graph, plan, len(losses_N))
    last = [consumer for consumer in plan.consumers if consumer.last]
    handles = [
        graph.nodes[consumer.node].register_prehook(uses.hook(consumer))
        for consumer in plan.consumers
        if not consumer.last
    ]
    try:
        edges = [GradientEdge(graph.nodes[consumer.node], 0) for consumer in last]
        gradients = torch.autograd.grad(losses_N, edges, weights_N, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    with torch.no_grad():
        for consumer, gradient in zip(last, gradients, strict=True):
            uses.take(consumer, gradient)
    return uses.finished()


class _Uses:
    """The uses that a backward pass has come by; a group is squared, and let go, with its last one."""

    def __init__(self, graph: Graph, plan: Plan, samples: int) -> None:
        self._graph, self._samples = graph, samples
        self._group = {used: group for group in plan.groups for used in group.used}
        self._taken: dict[Group, list[tuple[Used, Use | None]]] = {group: [] for group in plan.groups}
        self._squares: dict[str, Tensor] = {}

    def hook(self, consumer: Consumer) -> Callable[[Sequence[Tensor | None]], None]:
        def before(gradients: Sequence[Tensor | None]) -> None:
            self.take(consumer, gradients[0])

        return before

    def take(self, consumer: Consumer, gradient: Tensor | None) -> None:
        node = self._graph.nodes[consumer.node]
        for slot, used in consumer.slots:
            group = self._group[used]
            use = None
            if gradient is not None and consumer.layout is not None:
                use = use_of(node, slot, gradient, consumer.layout, used.shape)
            self._taken[group].append((used, use))
            if len(self._taken[group]) == group.uses:
                self._square(group)

    def finished(self) -> dict[str, Tensor]:
        missed = [name for group in self._taken for name in group.parameters]
        assert not missed, f"the backward pass did not come by {missed}"
        return self._squares

    def _square(self, group: Group) -> None:
        uses = [(used, use) for used, use in self._taken.pop(group) if use is not None]
        if not uses:
            return
        if group.moved:
            self._squares[group.parameters[0]] = uses[0][1].squares()
        else:
            self._squares |= joint_squares(self._graph, group, uses, self._samples)
