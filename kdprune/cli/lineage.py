"""`kdprune show`: what a run was made of."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from kdprune.cli.console import console
from kdprune.pipeline.lineage import Node, lineage


def print_lineage(run: Path) -> None:
    """Print the tree of a run."""
    node = lineage(run)
    tree = Tree(_label(node))
    _grow(tree, node)
    console(110).print(tree)


def _grow(tree: Tree, node: Node) -> None:
    for made_of in node.inputs:
        _grow(tree.add(_label(made_of)), made_of)


def _label(node: Node) -> Text:
    text = Text(node.title, style="bold")
    details = "  ".join(f"{name} {value}" for name, value in node.details.items())
    text.append(f"\n{details}", style="not bold")
    if node.problem:
        text.append(f"\n{node.problem}", style="not bold red")
    return text
