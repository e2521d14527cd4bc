"""What a run is, by its settings: those that its result depends on, and their hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from kdprune.config.settings import Config

# Settings that change where or how often something is written or how fast it is computed, not (but for rounding) what.
_NOT_IN_HASH = {
    "output", "name", "baseline", "log_with", "remake", "track_energy", "student.allow_collapse", "data.root",
    "data.workers", "teacher.cache",
    *(f"{group}.{name}" for group in ("train", "teacher.train", "record.train")
      for name in ("eval_every", "checkpoint_every", "checkpoint_keep", "save_epochs", "save_steps", "record")),
}  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    return asdict(config)


def config_hash(config: Config) -> str:
    """Twelve hex digits of a hash over the settings that the result depends on and that differ from the defaults.

    Defaults are left out so that a later version with one more setting knows the runs of an earlier one.
    """
    defaults = relevant(Config())
    content = {k: _number(v) for k, v in relevant(config).items() if v != defaults[k]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _number(value: Any) -> Any:
    """15 and 15.0 are one setting."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def relevant(config: Config) -> dict[str, Any]:
    """The settings that the result depends on, with dotted names."""
    return {name: value for name, value in dotted(to_dict(config)).items() if name not in _NOT_IN_HASH}


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 0.1}} → {"train.lr": 0.1}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
