"""What cached targets are a function of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kdprune.artefact import Key
from kdprune.data.reader import ViewSettings
from kdprune.teachers.cache import FORMAT
from kdprune.teachers.entries import Entries
from kdprune.teachers.teacher import Teacher

VIEWS_VERSION = 1  # of the code that makes views: one more whenever the same settings give other pixels


def targets_key(teacher: Teacher, fingerprint: str, views: ViewSettings, subset_hash: str, entries: Entries) -> Key:
    """The key of a teacher's cached targets.

    The subset is a part of it only where mixup or CutMix draw a sample's partner from the kept ones: otherwise a view
    is a function of the sample alone, and all subsets share one cache.

    Args:
        fingerprint: of the full training set.
        views: how they are made.
        subset_hash: of the kept ids.
    """
    spec = teacher.built.spec
    return {
        "format": FORMAT,
        "teacher": {
            "weights": teacher.weights_hash,
            "name": teacher.built.name,
            "arguments": teacher.built.model_args,
            # The rest of a spec is for held-out images, which are scaled and cropped in another way.
            "input": {"channels": spec.channels, "size": spec.size, "mean": spec.mean, "std": spec.std},
        },
        "data": fingerprint,
        "views": {**_settings(views), "version": VIEWS_VERSION},
        "subset": subset_hash if views.recipe.mixes else None,
        "entries": entries.about,
        "precision": str(teacher.engine.dtype).removeprefix("torch."),
    }


def _settings(views: ViewSettings) -> dict[str, Any]:
    """All settings, without the parts of the recipe that are left out: a later version may know more of them."""
    settings = asdict(views)
    return {**settings, "recipe": {part: value for part, value in settings["recipe"].items() if value}}
