"""The house rules that a reader of the sources can check: who imports whom, and what is never called."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import kdprune
from kdprune.registry import KINDS

ROOT = Path(kdprune.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A module may import from its own layer and from those before it.
LAYERS = [
    {"registry", "calls", "messages", "typed", "config", "checks", "files", "artefact", "bars"},
    {"data"},
    {"models"},
    {*KINDS, "alpha", "teachers"},
    {"runs", "testing"},
    {"training", "passes"},
    {"pipeline"},
    {"sweep", "report"},
    {"cli", "__main__", "api", "__init__"},
    {"testing"},
]
# Grammars without heavy imports, which the settings are checked with before anything else is loaded.
LIGHT = {"kdprune.alpha", "kdprune.data.recipe", "kdprune.losses.common.expression"}
PLUGINS = tuple(KINDS)


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> set[str]:
    """Modules of kdprune that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if exists(name)}
            found |= modules or {node.module}
    return {name for name in found if name.split(".")[0] == "kdprune"}


def exists(module: str) -> bool:
    path = ROOT.parent.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if part(module) in names)


def test_every_module_has_a_layer():
    assert {part(module_of(file)) for file in FILES} <= set().union(*LAYERS)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file):
    here = module_of(file)
    light = LIGHT if part(here) in ("config", "checks") else set()
    for other in imports(file) - light:
        assert exists(other), f"{here} imports {other}, which is not there"
        assert layer(other) <= layer(here), f"{here} imports {other}"


@pytest.mark.parametrize("kind", PLUGINS)
def test_plug_in_folders_do_not_import_each_other(kind):
    for file in (ROOT / kind).glob("*.py"):
        others = {part(module) for module in imports(file)} & set(PLUGINS)
        assert others <= {kind}, f"{module_of(file)} imports {others}"


@pytest.mark.parametrize("kind", PLUGINS)
def test_plug_ins_of_a_kind_share_only_what_is_marked_as_shared(kind):
    """The folder `common`; a plug-in never leans on another."""
    for file in (ROOT / kind).glob("[!_]*.py"):
        for module in imports(file):
            if part(module) == kind:
                assert module.startswith(f"kdprune.{kind}.common"), f"{module_of(file)} imports {module}"


@pytest.mark.parametrize(
    "module",
    [*sorted(LIGHT), "kdprune.cli.commands",
     *(f"kdprune.{name}" for name in ("calls", "config", "messages", "registry", "typed"))],
)  # fmt: skip
def test_light_modules_import_nothing_heavy(module):
    file = ROOT.parent.joinpath(*module.split(".")).with_suffix(".py")
    heavy = {"torch", "numpy", "timm", "accelerate", "datasets", "scipy", "PIL", "sklearn"}
    for node in ast.parse(file.read_text()).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
        assert not {name.split(".")[0] for name in names} & heavy


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_nothing_that_is_loaded_runs_code(file):
    """No pickle, no yaml.load, no torch.load or numpy.load that could unpickle."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert not re.search(r"pickle\.(loads?|Unpickler)$|^yaml\.(load|unsafe_load|full_load)", called), called
        assert called not in ("eval", "exec")
        if called == "torch.load":
            assert given.get("weights_only") == "True"
        if called == "np.load":
            assert given.get("allow_pickle", "False") == "False"
