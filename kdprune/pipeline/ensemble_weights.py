"""Weights of an ensemble's teachers, learned on training samples that none of them was trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import gather_object

from kdprune.config import Config
from kdprune.data.subset import load_subset
from kdprune.files import read_json
from kdprune.models.locate import resolve_teacher, run_of
from kdprune.passes.evaluation import held_out
from kdprune.pipeline.arms import teacher_config
from kdprune.teachers.ensemble import max_likelihood_weights
from kdprune.teachers.teacher import Teacher

if TYPE_CHECKING:
    from kdprune.pipeline.workbench import Workbench

log = logging.getLogger("kdprune")


def unseen(bench: Workbench, config: Config) -> np.ndarray:
    """Sample ids that no teacher was or will be trained on; known before any of them is trained.

    Raises:
        ValueError: there are none.
    """
    data = bench.data
    left = np.setdiff1d(np.arange(len(data.train)), data.dropped)
    for name, checkpoint, has_weights in bench.wanted(config):
        for ids in _trained_before(bench, name, checkpoint) if has_weights else _trained_here(bench, config, name):
            left = np.setdiff1d(left, ids)
        if not len(left):
            raise ValueError(
                f"--teacher.weights: learned needs training samples that no teacher was trained on, and with {name} "
                "there are none; allowed are teachers of a part (--teacher.train_fraction 0.9), or numbers"
            )
    return left


def learn(bench: Workbench, config: Config, teachers: list[Teacher], ids: np.ndarray) -> list[float]:
    """The weights under which the labels of these samples, seen without augmentation, are likeliest.

    Each teacher answers at 1, or at its own of `--teacher.temperatures` over the run's, as `combine` takes it.
    """
    temperature = config.distill.temperature
    log_p_KN = torch.stack(
        [
            _of_labels(bench, teacher, ids, temperature / own)
            for teacher, own in zip(teachers, config.teacher.temperatures or [temperature] * len(teachers), strict=True)
        ]
    )
    weights = max_likelihood_weights(log_p_KN)
    log.info(
        "weights of the teachers, learned on %d samples that none was trained on: %s",
        len(ids), ", ".join(f"{t.built.name} {w:.3f}" for t, w in zip(teachers, weights, strict=True)),
    )  # fmt: skip
    return weights


def _of_labels(bench: Workbench, teacher: Teacher, ids: np.ndarray, scale: float) -> torch.Tensor:
    """Logarithms of the probabilities that a teacher gives to the samples' labels, N, on the host."""
    batches = held_out(bench.data, teacher.built.spec, bench.accelerator, of_train=ids)
    parts = [
        torch.log_softmax(scale * teacher(batch.images), 1).gather(1, batch.target[:, None])[:, 0] for batch in batches
    ]
    own = torch.cat(parts).tolist() if parts else []
    return torch.tensor(gather_object(own), dtype=torch.float64)


def _trained_here(bench: Workbench, config: Config, name: str) -> list[np.ndarray]:
    """What a teacher will be trained on, and each born-again generation before it."""
    recipe = teacher_config(config, name)
    ids = [bench.subset(recipe).ids]
    return ids + _trained_here(bench, recipe, name) if recipe.teacher.models else ids


def _trained_before(bench: Workbench, name: str, checkpoint: str | None) -> list[np.ndarray]:
    """What a teacher was trained on, and its own teachers before it, as far as their runs are there to say it."""
    data = bench.data
    try:
        weights = Path(checkpoint) if checkpoint else resolve_teacher(name)
        run = None if weights is None else run_of(weights)
        if run is not None:
            ids = [load_subset(run / "subset.json", data.fingerprint, len(data.train)).ids]
            summary = run / "summary.json"
            for teacher in read_json(summary)["teacher"] if summary.is_file() else []:
                ids += _trained_before(bench, teacher["source"], None)
            return ids
        reason = "what it was trained on is not known"
    except ValueError as error:
        reason = str(error)
    log.warning("--teacher.weights learned: %s is taken to have seen none of the training samples (%s)", name, reason)
    return []
