"""What cached targets are a function of."""

from __future__ import annotations

from kdprune.artefact import Key
from kdprune.data.view_settings import ViewSettings
from kdprune.teachers.cache import FORMAT
from kdprune.teachers.entries import Entries
from kdprune.teachers.teacher import Teacher


def targets_key(
    teacher: Teacher, fingerprint: str, total: int, views: ViewSettings, subset_hash: str, entries: Entries
) -> Key:
    """The key of a teacher's cached targets.

    The subset is a part of it only where mixup or CutMix draw a sample's partner from the kept ones: otherwise a view
    is a function of the sample alone, and all subsets share one cache.

    Args:
        fingerprint, total: of the full training set.
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
            "structure": teacher.built.structure,
            # The rest of a spec is for whole images, and these are views.
            "input": {
                "channels": spec.channels,
                "size": spec.size,
                "interpolation": spec.interpolation,
                "mean": spec.mean,
                "std": spec.std,
            },
        },
        "data": fingerprint,
        "views": views.key(),
        "subset": subset_hash if views.recipe.mixes else None,
        "entries": entries.about,
        "samples": total,
        # Folding and compiling move the logits by rounding; a run's result may not depend on who filled its cache.
        "engine": teacher.engine.route,
        "precision": str(teacher.engine.dtype).removeprefix("torch."),
    }
