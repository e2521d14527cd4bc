"""The house rules that a reader of the sources can check: who imports whom, and what is never called."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kdprune
from kdprune.registry import KINDS

ROOT = Path(kdprune.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A module may import from its own layer and from those before it.
LAYERS = [
    {"registry", "calls", "messages", "typed", "config", "checks", "outside", "yaml_text", "files", "artefact", "bars"},
    {"data"},
    {"models", "geometry", "records"},
    {*KINDS, "alpha", "teachers"},
    {"runs", "testing"},
    {"training", "passes"},
    {"pipeline"},
    {"analysis"},
    {"sweep", "report", "export"},
    {"planning"},
    {"cli", "__main__", "api", "__init__"},
]
# Grammars without heavy imports, which the settings are checked with before anything else is loaded.
LIGHT = {"kdprune.alpha", "kdprune.data.recipe", "kdprune.losses.common.expression", "kdprune.pruners.common.when"}
QUICK = {
    *LIGHT,
    "kdprune.cli.commands",
    *(f"kdprune.{n}" for n in ("calls", "config", "messages", "registry", "typed")),
}
HEAVY = {"torch", "numpy", "timm", "accelerate", "datasets", "scipy", "PIL", "sklearn"}


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_of(file): ast.parse(file.read_text()) for file in FILES}


def imported(tree: ast.AST, package: str = "kdprune") -> set[str]:
    """Modules of a package that a file imports: at its top, inside a function, or for the type checker only."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(TREES)
            found |= submodules or {node.module or ""}
    return {name for name in found if name.split(".")[0] == package}


IMPORTS = {module: imported(tree) for module, tree in TREES.items()}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part(module) in names)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in a graph, from one of its nodes back to itself; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_every_import_is_of_a_module_that_exists():
    missing = {(module, other) for module, others in IMPORTS.items() for other in others - set(TREES)}
    assert not missing


def test_every_module_has_a_layer_and_no_layer_is_listed_twice():
    listed = [name for names in LAYERS for name in names]
    assert {part(module) for module in TREES} <= set(listed)
    assert len(listed) == len(set(listed))


def test_imports_go_one_way():
    upwards = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others - (LIGHT if part(module) in ("config", "checks") else set())
        if layer(other) > layer(module)
    ]
    assert not upwards


def test_modules_import_each_other_in_no_circle():
    """Nor for the type checker: what two modules know of each other belongs into a third."""
    assert not circle(IMPORTS)


def test_a_circle_of_imports_is_found_even_if_only_the_type_checker_takes_it():
    there = "if TYPE_CHECKING:\n    from kdprune.config import Config"
    assert circle({**IMPORTS, "kdprune.typed": imported(ast.parse(there))})[1:-1] != []
    assert imported(ast.parse("def f():\n    from kdprune import typed")) == {"kdprune.typed"}


def test_plug_ins_share_only_what_is_marked_as_shared():
    """A plug-in may import the folder `common` of its kind: no other kind of plug-in, and no plug-in beside it."""
    plug_ins = {module for module in TREES if part(module) in KINDS and module.count(".") >= 2}
    assert plug_ins
    for module in plug_ins:
        kinds = {part(other) for other in IMPORTS[module]} & set(KINDS)
        assert kinds <= {part(module)}, f"{module} imports {kinds}"
        beside = {other for other in IMPORTS[module] & plug_ins if other.split(".")[2] != "common"}
        assert not beside, f"{module} imports {beside}"


def test_light_modules_import_nothing_heavy_at_their_top():
    for module in QUICK:
        top = ast.Module([node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        heavy = [name for name in HEAVY if imported(top, name)]
        assert not heavy, f"{module} imports {heavy}"


def at_top(module: str) -> set[str]:
    """What importing a module imports at once: kdprune's modules with their packages, and the packages of others."""
    statements = [node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)]
    top = ast.Module(statements, [])
    others = {node.module or "" for node in statements if isinstance(node, ast.ImportFrom)}
    others |= {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    own = {name for found in imported(top) for name in TREES if f"{found}.".startswith(f"{name}.")}
    return own | {name.partition(".")[0] for name in others} - {"kdprune"}


def loaded_with(*modules: str) -> set[str]:
    """All that is imported with some modules."""
    found, ahead = set(modules), list(modules)
    while ahead:
        more = at_top(ahead.pop()) - found
        found |= more
        ahead += more & set(TREES)
    return found


# Modules that a command begins with → what it does not wait for, since it never uses it, or only now and then.
WAITS_NOT = {
    ("report.runs", "report.compare", "report.where", "cli.runs"): {*HEAVY, "pyarrow", "matplotlib"},
    ("selectors.common.select", "selectors.common.samples", "cli.select"): {*HEAVY - {"torch", "numpy"}, "matplotlib"},
    ("cli.report", "report.draw"): {"timm", "accelerate", "scipy", "sklearn", "datasets", "matplotlib"},
    ("cli.plugins",): {"timm", "accelerate", "scipy", "sklearn", "datasets"},
    ("pipeline.train", "pipeline.evaluate", "cli.evaluate"): {"datasets", "scipy", "sklearn", "matplotlib", "pandas"},
}


@pytest.mark.parametrize("modules", WAITS_NOT, ids=lambda modules: modules[0])
def test_commands_import_nothing_before_it_is_used(modules):
    assert not loaded_with(*(f"kdprune.{name}" for name in modules)) & WAITS_NOT[modules]


def test_what_is_imported_on_the_way_is_found():
    assert {"torch", "timm", "kdprune.models", "kdprune"} <= loaded_with("kdprune.models.locate")


def runs_code(call: ast.Call) -> bool:
    """Whether a call could run what a file says: pickle, yaml.load, torch.load or numpy.load that unpickles, eval."""
    called = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return bool(
        re.search(r"pickle\.(loads?|Unpickler)$|^yaml\.(load|unsafe_load|full_load)$|^(eval|exec)$", called)
        or (called == "torch.load" and given.get("weights_only") != "True")
        or (called == "np.load" and given.get("allow_pickle", "False") != "False")
    )


def test_nothing_that_is_loaded_runs_code():
    calls = [(module, node) for module, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert calls
    unsafe = [f"{module}, line {call.lineno}: {ast.unparse(call)}" for module, call in calls if runs_code(call)]
    assert not unsafe


# What reads the contents of a file → the modules that may, which bound it; all others go by theirs.
READERS = {
    "json.loads": {"kdprune.outside", "kdprune.artefact"},
    "json.load": set(),
    "yaml.safe_load": set(),
    "np.load": {"kdprune.files"},
    "Image.open": {"kdprune.data.images"},
    "pq.read_metadata": {"kdprune.data.sources.rows"},
    "safetensors.safe_open": {"kdprune.models.weights"},
    "timm.create_model": {"kdprune.models.create", "kdprune.export.hub"},  # the latter of what it has just written
}


def test_files_of_others_are_read_in_one_place():
    for module, tree in TREES.items():
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for reader, allowed in READERS.items():
            assert reader not in called or module in allowed, f"{module} calls {reader}"
    images = next(
        node for node in ast.walk(TREES["kdprune.data.images"])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open"
    )  # fmt: skip
    assert "formats" in {keyword.arg for keyword in images.keywords}


def test_what_would_run_code_is_found():
    unsafe = ["pickle.load(f)", "yaml.load(t)", "torch.load(f)", "torch.load(f, weights_only=False)", "eval(t)"]
    for code in [*unsafe, "np.load(f, allow_pickle=True)"]:
        assert runs_code(ast.parse(code, mode="eval").body), code
    for code in ("yaml.safe_load(t)", "torch.load(f, weights_only=True)", "np.load(f)"):
        assert not runs_code(ast.parse(code, mode="eval").body), code
