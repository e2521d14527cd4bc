"""What a sweep makes, as a graph: every shared artefact is one node, and comes before the runs that need it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from kdprune.pipeline.needs import Need, merged_targets


@dataclass(frozen=True)
class Node:
    """Something to be made.

    Attributes:
        what: it is, for a person.
        need: how it is made; None for a run, which its sweep knows.
        needs: ids of what must have been made before.
        after: ids of what must have ended before, well or not.
    """

    id: str
    what: str
    need: Need | None = None
    needs: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()


@dataclass
class Graph:
    """Nodes by id, each after those that it needs."""

    nodes: dict[str, Node] = field(default_factory=dict)
    _waiting: dict[str, int] = field(default_factory=dict, repr=False, compare=False)  # as long as none is added

    def add(self, node: Node) -> None:
        """Add a node; another one of the same id is the same."""
        self.nodes.setdefault(node.id, node)
        self._waiting.clear()

    def ready(self, made: Collection[str], ended: Collection[str], begun: Collection[str]) -> list[Node]:
        """Nodes that can be begun, those first that most others wait for.

        Args:
            made: ids of what is there.
            ended: of what is there, or failed for good.
            begun: of these, and of what is under way.
        """
        made, ended = set(made), set(ended)
        free = [
            node for node in self.nodes.values() if node.id not in begun and node.needs <= made and node.after <= ended
        ]
        waiting = self.waiting_for()
        return sorted(free, key=lambda node: -waiting[node.id])

    def lost(self, failed: Collection[str], begun: Collection[str]) -> dict[str, str]:
        """Nodes that can never be begun, each with what failed and is needed by it."""
        failed = set(failed)
        return {
            node.id: min(node.needs & failed)
            for node in self.nodes.values()
            if node.id not in begun and node.needs & failed
        }

    def waiting_for(self) -> dict[str, int]:
        """How many nodes need each node, directly or not."""
        if self._waiting:
            return self._waiting
        above: dict[str, set[str]] = {name: set() for name in self.nodes}
        for node in reversed(self.nodes.values()):
            for needed in node.needs | node.after:
                above[needed] |= above[node.id] | {node.id}
        self._waiting.update({name: len(others) for name, others in above.items()})
        return self._waiting


def shared(runs: Mapping[str, Iterable[Need]]) -> tuple[list[Need], dict[str, frozenset[str]]]:
    """What runs share, in an order in which it can be made; and of each run, which of that it needs.

    Trainings are always parts of their own, so that several are trained at once. Scores and cached targets are if two
    runs need them; one run alone makes them on its way. What several teachers say of the same views is filled together.

    Args:
        runs: needs of each run, by its id.
    """
    users: dict[str, set[str]] = {}
    found: dict[str, Need] = {}
    for run, needs in runs.items():
        for need in _closure(needs):
            users.setdefault(need.id, set()).add(run)
            found.setdefault(need.id, need)
    kept = [need for need in found.values() if need.kind == "training" or len(users[need.id]) > 1]
    together = merged_targets([need for need in kept if need.kind == "targets"])
    order = {need.id: need for need in [*(one for one in kept if one.kind != "targets"), *together.values()]}
    ids = {need.id: together.get(need.id, need).id for need in kept}
    return list(order.values()), {run: needed(needs, ids) for run, needs in runs.items()}


def needed(needs: Iterable[Need], ids: Mapping[str, str]) -> frozenset[str]:
    """Ids of the nodes that stand for needs; where there is none, of those that the need is made of."""
    found: set[str] = set()
    for need in needs:
        found |= {ids[need.id]} if need.id in ids else needed(need.needs, ids)
    return frozenset(found)


def nodes_of(needs: Iterable[Need]) -> Iterator[Node]:
    """A node for each need, as `shared` orders them."""
    needs = list(needs)
    ids = {need.id: need.id for need in needs}
    for need in needs:
        yield Node(need.id, need.what, need, needed(need.needs, ids))


def _closure(needs: Iterable[Need]) -> Iterator[Need]:
    """Needs and all that they are made of, each after what it is made of."""
    for need in needs:
        yield from _closure(need.needs)
        yield need


def without_needs(graph: Graph, runs: Collection[str]) -> Graph:
    """The graph in which some runs need nothing, and without what then nobody needs."""
    nodes = {name: replace(node, needs=frozenset()) if name in runs else node for name, node in graph.nodes.items()}
    wanted: set[str] = set()
    for node in reversed(nodes.values()):
        if node.need is None or node.id in wanted:
            wanted |= {node.id} | node.needs | node.after
    return Graph({name: node for name, node in nodes.items() if name in wanted})
