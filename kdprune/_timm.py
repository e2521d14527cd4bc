"""kdprune's own models are timm's, too: `import kdprune` is enough for `timm.create_model('cifar_resnet8')`.

Importing timm takes seconds, which a help text must not; so the models are registered when timm itself is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = ("kdprune.models.cifar_resnet", "kdprune.models.mlp")


def register_with_timm() -> None:
    """Register the models now, if timm is there already, else as soon as it is."""
    if "timm" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WhenTimmIsImported())


def _register() -> None:
    for module in MODULES:
        importlib.import_module(module)


class _WhenTimmIsImported(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "timm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("timm")
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
