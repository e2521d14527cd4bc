"""kdprune trains small models on a fraction of the data, with a teacher.

The names below are imported when they are first used, so that `import kdprune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdprune import losses
    from kdprune.api.runs import Result, cache, evaluate, load_student, train
    from kdprune.api.scoring import record, score
    from kdprune.api.select import select
    from kdprune.api.teaching import Targets, Teacher
    from kdprune.api.views import Views
    from kdprune.config import Config
    from kdprune.data.scores import Scores
    from kdprune.data.subset import Subset
    from kdprune.training.interrupt import Interrupted

__version__ = "0.1.0"

_MODULES = {
    "Config": "config",
    "Interrupted": "training.interrupt",
    "Result": "api.runs",
    "Scores": "data.scores",
    "Subset": "data.subset",
    "Targets": "api.teaching",
    "Teacher": "api.teaching",
    "Views": "api.views",
    "cache": "api.runs",
    "evaluate": "api.runs",
    "load_student": "api.runs",
    "record": "api.scoring",
    "score": "api.scoring",
    "select": "api.select",
    "train": "api.runs",
}

__all__ = [
    "Config",
    "Interrupted",
    "Result",
    "Scores",
    "Subset",
    "Targets",
    "Teacher",
    "Views",
    "cache",
    "evaluate",
    "load_student",
    "losses",
    "record",
    "score",
    "select",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("kdprune.losses")
    if name not in _MODULES:
        raise AttributeError(f"module 'kdprune' has no attribute {name!r}")
    value = getattr(import_module(f"kdprune.{_MODULES[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
