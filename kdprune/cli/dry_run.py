"""`kdprune sweep --dry_run`: the runs, what they share as a tree, and what all of it will take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.tree import Tree

from kdprune.cli.console import console
from kdprune.cli.under_way import clock
from kdprune.files import in_bytes
from kdprune.sweep.estimate import Estimate, Estimator, duration, free_bytes
from kdprune.sweep.graph import Graph, Node
from kdprune.sweep.plan import Plan
from kdprune.sweep.study import value_words

SHOWN = 100  # runs


def print_plan(plan: Plan, jobs: int, threads: int) -> None:
    """Print a plan.

    Args:
        threads: that a run will have.
    """
    estimates = Estimator(threads).of_plan(plan)
    out = console()
    out.print(_runs(plan, estimates))
    out.print(_parts(plan.graph, estimates))
    total = sum(estimates.values(), Estimate())
    free = free_bytes(Path(plan.study.base.output))
    out.print(
        f"about {clock(duration(plan.graph, estimates, jobs))} with {jobs} at a time ({clock(total.seconds)} of runs), "
        f"{total.passes:,} sample passes, {in_bytes(total.bytes)} on disk ({in_bytes(free)} are free)",
        highlight=False,
    )
    if total.bytes > free:
        out.print("the disk cannot hold it: take --teacher.views, --teacher.top_k, or another --output")


def _runs(plan: Plan, estimates: Mapping[str, Estimate]) -> Table:
    tries = [run.id for arm in plan.arms for trial in arm.trials for run in trial.runs]
    title = f"{len(plan.finals)} runs"
    if tries:
        of_tries = clock(sum(estimates[id].seconds for id in tries))
        title += f", and {len(tries)} that choose {', '.join(plan.study.tuned)} ({of_tries})"
    table = Table(title=title)
    names = list(dict.fromkeys(name for _, run in plan.finals for name in run.coordinates))
    for name in names:
        table.add_column(name)
    table.add_column("about", justify="right")
    for id, run in plan.finals[:SHOWN]:
        table.add_row(*(value_words(run.coordinates[name]) for name in names), clock(estimates[id].seconds))
    if len(plan.finals) > SHOWN:
        table.add_row(*["…"] * (len(names) + 1))
    return table


def _parts(graph: Graph, estimates: Mapping[str, Estimate]) -> Tree:
    """What runs share; below each part what it is made of."""
    parts = {id: node for id, node in graph.nodes.items() if node.need is not None}
    inner = {id for node in parts.values() for id in node.needs}
    users = {id: sum(id in node.needs for node in graph.nodes.values() if node.need is None) for id in parts}
    tree = Tree("shared, each made once" if parts else "nothing is shared")
    for id in parts:
        if id not in inner:
            _grow(tree, parts[id], graph, {id: _label(parts[id], estimates[id], users[id]) for id in parts})
    return tree


def _grow(tree: Tree, node: Node, graph: Graph, labels: Mapping[str, str]) -> None:
    branch = tree.add(labels[node.id])
    for id in sorted(node.needs):
        _grow(branch, graph.nodes[id], graph, labels)


def _label(node: Node, estimate: Estimate, users: int) -> str:
    size = f", {in_bytes(estimate.bytes)}" if estimate.bytes else ""
    return f"{node.what}: about {clock(estimate.seconds)}{size}, for {users} runs"
