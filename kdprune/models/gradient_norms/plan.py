"""Where parameters meet samples: read off the graphs of a batch of two and a batch of three.

An output whose shape follows the batch size belongs to the samples; any other is made of parameters alone. Where an
operation of the first kind takes in a tensor of the second kind, parameters are *used*, and there the gradient of each
sample is a closed form. From a used tensor back to the parameters themselves the way is the same for all samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdprune.models.gradient_norms.graph import Graph, Shape, Topology
from kdprune.models.gradient_norms.layout import Layout, find_layout

# Operations whose transposes keep the norm: they only move elements, or change their type.
MOVES = {
    f"{name}Backward0"
    for name in ("Alias", "Clone", "Permute", "Squeeze", "T", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View")
} | {"ReshapeAliasBackward0", "SqueezeBackward1", "SqueezeBackward2"}


@dataclass(frozen=True)
class Used:
    """A tensor of parameters: an output of a node, and its shape."""

    node: int
    output: int
    shape: Shape


@dataclass(frozen=True)
class Consumer:
    """An operation that brings used tensors and samples together; `slots` are the inputs that are used tensors."""

    node: int
    layout: Layout | None
    slots: tuple[tuple[int, Used], ...]
    last: bool  # no other consumer lies behind it: its backward function need not run


@dataclass(frozen=True)
class Group:
    """Parameters whose gradients come through the same used tensors.

    `uses` counts them with repetition. `moved` says that one parameter is used once, only moved: then the norm at the
    used tensor is the parameter's, and no per-example gradient is held.
    """

    parameters: tuple[str, ...]
    used: tuple[Used, ...]
    uses: int
    moved: bool


@dataclass(frozen=True)
class Plan:
    topology: Topology
    consumers: tuple[Consumer, ...]
    groups: tuple[Group, ...]
    left_out: tuple[str, ...] = ()

    def group_of(self, used: Used) -> Group:
        return next(group for group in self.groups if used in group.used)

    def consumers_of(self, groups: set[Group]) -> set[Consumer]:
        used = {used for group in groups for used in group.used}
        return {consumer for consumer in self.consumers if used & {u for _, u in consumer.slots}}

    def minor(self, consumers: set[Consumer]) -> Plan:
        """The same with the samples fastest in these consumers."""
        return replace(self, consumers=tuple(_minor(c) if c in consumers else c for c in self.consumers))

    def without(self, groups: set[Group]) -> Plan:
        """The same, but that these groups are `left_out`: their parameters need another way."""
        used = {used for group in groups for used in group.used}
        kept = tuple(replace(c, slots=tuple((slot, u) for slot, u in c.slots if u not in used)) for c in self.consumers)
        names = tuple(name for group in self.groups if group in groups for name in group.parameters)
        return replace(self, consumers=kept, groups=tuple(g for g in self.groups if g not in groups), left_out=names)


def make_plan(of_2: Graph, of_3: Graph) -> Plan | None:
    """The plan for every batch with this topology; None if the two batches differ in it."""
    if of_2.topology != of_3.topology:
        return None
    edges, names = of_3.topology.edges, dict(of_3.topology.parameters)
    shapes_2, shapes_3 = of_2.shapes(), of_3.shapes()
    batched = [a != b for a, b in zip(shapes_2, shapes_3, strict=True)]
    behind: dict[int, frozenset[str]] = {}  # the parameters behind a node without samples
    found: list[tuple[int, list[tuple[int, Used]]]] = []
    for node, inputs in enumerate(edges):
        slots = [
            (slot, Used(edge[0], edge[1], shapes_3[edge[0]][edge[1]]))
            for slot, edge in enumerate(inputs)
            if batched[node] and edge and not batched[edge[0]] and _parameters(edge[0], edges, names, behind)
        ]
        if slots:
            found.append((node, slots))
    last = _last({node for node, _ in found}, edges)
    consumers = tuple(
        Consumer(node, find_layout(shapes_2[node][0], shapes_3[node][0]), tuple(slots), node in last)
        for node, slots in found
    )
    return Plan(of_3.topology, consumers, _groups(consumers, of_3.topology, names, behind))


def _parameters(
    node: int, edges: tuple[tuple, ...], names: dict[int, str], behind: dict[int, frozenset[str]]
) -> frozenset[str]:
    if node not in behind:
        inputs = [_parameters(edge[0], edges, names, behind) for edge in edges[node] if edge]
        behind[node] = frozenset({names[node]} if node in names else set()).union(*inputs)
    return behind[node]


def _last(consumers: set[int], edges: tuple[tuple, ...]) -> set[int]:
    """The consumers from which no other one can be reached."""
    reaches: dict[int, bool] = {}
    stack = [0]
    while stack:  # deep networks have deeper graphs than Python has recursion
        node = stack[-1]
        open_inputs = [edge[0] for edge in edges[node] if edge and edge[0] not in reaches]
        if open_inputs:
            stack.extend(open_inputs)
        else:
            reaches[node] = any(edge[0] in consumers or reaches[edge[0]] for edge in edges[node] if edge)
            stack.pop()
    return {node for node in consumers if not reaches[node]}


def _groups(
    consumers: tuple[Consumer, ...], topology: Topology, names: dict[int, str], behind: dict[int, frozenset[str]]
) -> tuple[Group, ...]:
    uses = [used for consumer in consumers for _, used in consumer.slots]
    merged: list[tuple[set[str], list[Used]]] = []
    for used in uses:
        parameters, together = set(behind[used.node]), [used]
        for other in [group for group in merged if group[0] & parameters]:
            merged.remove(other)
            parameters |= other[0]
            together = other[1] + together
        merged.append((parameters, together))
    return tuple(
        Group(
            tuple(sorted(parameters)),
            tuple(dict.fromkeys(together)),
            len(together),
            len(together) == len(parameters) == 1 and _moved(together[0].node, topology, names),
        )
        for parameters, together in merged
    )


def _moved(node: int, topology: Topology, names: dict[int, str]) -> bool:
    """Whether only moves lie between a used tensor and its one parameter."""
    while node not in names:
        inputs = [edge for edge in topology.edges[node] if edge]
        if topology.names[node] not in MOVES or len(inputs) != 1:
            return False
        node = inputs[0][0]
    return True


def _minor(consumer: Consumer) -> Consumer:
    return replace(consumer, layout=consumer.layout and replace(consumer.layout, minor=True))
