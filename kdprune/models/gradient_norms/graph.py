"""The graph that autograd has recorded, as plain tuples that can be compared.

It is the one complete account of how a forward pass uses its parameters: a module that is called twice, a weight that a
function takes past its module, and a table that is indexed before it is added all stand there as what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

Shape = tuple[int, ...]
Edge = tuple[int, int] | None  # the node that computed an input and which of its outputs that is; None: no gradient


@dataclass(frozen=True)
class Topology:
    """What two passes over the same model have in common, whatever their batch size."""

    names: tuple[str, ...]
    edges: tuple[tuple[Edge, ...], ...]
    parameters: tuple[tuple[int, str], ...]  # leaf nodes and the names of the parameters that they stand for


@dataclass(frozen=True)
class Graph:
    """The nodes behind a tensor; index 0 is the one that computed it."""

    nodes: list[Node]
    topology: Topology

    def shapes(self) -> list[tuple[Shape, ...]]:
        """The shapes of the outputs of each node."""
        return [tuple(tuple(output.shape) for output in _outputs(node)) for node in self.nodes]


def trace(root: Tensor, parameters: Mapping[str, Tensor]) -> Graph:
    """Walk the graph of `root` from its end; always in the same order.

    Raises:
        ValueError: it ends at a tensor that is none of the parameters.
    """
    assert root.grad_fn is not None
    names = {id(parameter): name for name, parameter in parameters.items()}
    index: dict[Node, int] = {root.grad_fn: 0}
    nodes: list[Node] = [root.grad_fn]
    edges: list[tuple[Edge, ...]] = []
    leaves: list[tuple[int, str]] = []
    for i, node in enumerate(nodes):  # the list grows on the way
        inputs: list[Edge] = []
        for producer, output in node.next_functions:
            if producer is None:
                inputs.append(None)
                continue
            if producer not in index:
                index[producer] = len(nodes)
                nodes.append(producer)
            inputs.append((index[producer], output))
        edges.append(tuple(inputs))
        leaf = getattr(node, "variable", None) if not inputs else None
        if leaf is not None:
            if id(leaf) not in names:
                raise ValueError(
                    f"the loss depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient and is no "
                    "parameter of the model, or was one in an earlier pass: a model must not keep what it computes"
                )
            leaves.append((i, names[id(leaf)]))
    return Graph(nodes, Topology(tuple(node.name() for node in nodes), tuple(edges), tuple(leaves)))


def _outputs(node: Node) -> Any:
    variable = getattr(node, "variable", None)
    return node._input_metadata if variable is None else (variable,)
