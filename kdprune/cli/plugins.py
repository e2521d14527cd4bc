"""`kdprune list`: what there is by name, with what it is, what it costs and where it is from."""

from __future__ import annotations

import fnmatch
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from rich.table import Table

from kdprune.cli.console import console
from kdprune.messages import unknown
from kdprune.registry import KINDS, get, names
from kdprune.scorers.common.apply import declared

WIDTH = 200  # of a table that goes into a file or a pipe
MODELS = "models"
# Authors and year as texts cite them, with the arXiv number where it stands there.
_CITED = re.compile(
    r"[A-Z][\w.\-]+(?: et al\.| (?:and|&) [A-Z][\w\-]+)?(?:, [A-Z]\w+)? (?:19|20)\d\d(?:, arXiv \d{4}\.\d{4,5})?"
)


def print_list(kind: str | None, pattern: str = "*") -> None:
    """Print the plug-ins of a kind, or the models, or everything.

    Args:
        kind: a folder of plug-ins, "models", or None for all.
        pattern: of model names.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in (None, MODELS, *KINDS):
        raise ValueError(unknown("kind", kind, [*KINDS, MODELS]))
    for each in [*KINDS, MODELS] if kind is None else [kind]:
        print(f"{each}:")
        if each == MODELS:
            print("".join(f"  {name}\n" for name in models(pattern)), end="")
        else:
            _print_plugins(each)


def models(pattern: str = "*") -> list[str]:
    """Names of models, kdprune's own before timm's."""
    import timm

    from kdprune.models import cifar_resnet, cifar_vgg, cifar_wrn, mlp

    modules = (mlp, cifar_resnet, cifar_vgg, cifar_wrn)
    own = [name for module in modules for name in timm.list_models(module=module.__name__.split(".")[-1])]
    found = timm.list_models(pattern)
    return [name for name in own if fnmatch.fnmatch(name, pattern)] + [name for name in found if name not in own]


def about(plugin: Any) -> str:
    """The first sentence that a plug-in, or else its module, says of itself."""
    of_module = inspect.getdoc(sys.modules[plugin.__module__]) or ""
    text = of_module if plugin.__module__.startswith("kdprune.") else plugin.__doc__ or of_module
    first = " ".join(text.split("\n\n")[0].split()).partition(" Shapes: ")[0]
    return re.sub(r" \([^()]*\d{4}[^()]*\)", "", first).rstrip(".")


def cited(plugin: Any) -> str:
    """The paper that a plug-in names first; empty if it names none."""
    module = sys.modules[plugin.__module__]
    for text in (inspect.getdoc(module), plugin.__doc__, inspect.getsource(module)):
        if match := _CITED.search(text or ""):
            return match[0]
    return ""


def _of_loss(loss: Any) -> str:
    return "the layers of both models, no cached targets" if loss.needs_features else "nothing beside the targets"


def _of_selector(selector: Any) -> str:
    needs = getattr(selector, "needs", ())
    found = [what for need, what in (("scores", "scores"), ("features", "embeddings")) if need in needs]
    return " and ".join(found) or "nothing"


def _of_order(order: Any) -> str:
    return "scores, unless it is random" if "reads_scores" in vars(order) else "nothing"


def _of_pruner(pruner: Any) -> str:
    return f"{pruner.declared.cost}{'; labelled samples' if pruner.declared.labels else ''}"


_COSTS: dict[str, Callable[[Any], str]] = {
    "losses": _of_loss,
    "selectors": _of_selector,
    "orders": _of_order,
    "pruners": _of_pruner,
}
_SUPPLIED = {"losses": 0, "selectors": 1, "orders": 1, "pruners": 1}  # parameters that are not the user's


def _print_plugins(kind: str) -> None:
    of_scorers = kind == "scorers"
    table = Table(box=None, pad_edge=False)
    table.add_column("  name")
    for column in ["what it is", *(["record", "hard", "labels"] if of_scorers else []), "costs", "paper"]:
        table.add_column(column, overflow="fold")
    for name in names(kind):
        try:
            row = _of_scorer(name) if of_scorers else _of_plugin(kind, name)
        except (
            ValueError,
            ImportError,
            AttributeError,
        ) as error:  # of another package: show the rest
            row = [name, str(error)]
        table.add_row(f"  {row[0]}", *row[1:])
    console(WIDTH).print(table, highlight=False)


def _of_plugin(kind: str, name: str) -> list[str]:
    plugin = get(kind, name)
    costs = _COSTS[kind](plugin) if kind in _COSTS else ""
    return [_written(plugin, name, _SUPPLIED.get(kind, 0)), about(plugin), costs, cited(plugin)]


def _of_scorer(name: str) -> list[str]:
    says, scorer = declared(name), get("scorers", name)
    record = f"{says.needs} + scores" if "difficulty" in says.reads else says.needs
    labels = "needed" if says.labels else "no"
    return [_written(scorer, name, len(says.reads)), about(scorer), record, says.hard, labels, says.cost, says.paper]


def _written(plugin: Any, name: str, supplied: int) -> str:
    """A plug-in with the parameters that a user may write."""
    parameters = [one for one in list(inspect.signature(plugin).parameters)[supplied:] if one != "layers"]
    return f"{name}({', '.join(parameters)})" if parameters else name
