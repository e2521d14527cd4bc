"""What weight pruning left of a student, and what that saves."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from kdprune.models.build import count_parameters, load_model
from kdprune.models.mask_file import load_mask
from kdprune.models.multiply_adds import multiply_adds
from kdprune.pipeline.job import Job
from kdprune.runs.run_dir import RunDir


def sparsity(job: Job, run: RunDir) -> dict[str, Any]:
    """Densities of the exported student, multiply-adds for one image, and bytes of its file.

    The file holds the zeros, so only a compressed one is smaller; no dense kernel skips them either.
    """
    settings, mask = job.config.student, load_mask(run.path)
    student = load_model(run.weights, job.student.model)
    spec = student.spec
    counted = multiply_adds(student.model, (spec.channels, *spec.size_HW))
    parameters = dict(student.model.named_parameters())
    zeros = sum(parameters[name].numel() - int(parameters[name].count_nonzero()) for name in mask.kept)
    return {
        "pruner": mask.made.get("pruner"),
        "at": mask.made.get("at"),
        "check": settings.mask_check,
        "mask_hash": mask.hash,
        "density": mask.density,
        "kept": mask.count,
        "total": mask.total,
        "density_of_all_parameters": 1 - zeros / count_parameters(student.model),
        "layers": mask.densities,
        "excluded": list(mask.excluded),
        "multiply_adds": {"dense": counted.dense, "sparse": counted.sparse},
        "bytes": {"plain": run.weights.stat().st_size, "compressed": _compressed(run.weights)},
    }


def _compressed(path: Path) -> int:
    """Bytes of a file as DEFLATE (gzip, zip) would store it."""
    packer, size = zlib.compressobj(), 0
    with open(path, "rb") as file:
        while block := file.read(2**20):
            size += len(packer.compress(block))
    return size + len(packer.flush())
