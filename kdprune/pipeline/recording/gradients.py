"""Norms of each sample's gradient, of proxies at one epoch of their training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kdprune.config import Config
from kdprune.data.reader import Batch
from kdprune.models.gradient_norms import GradientNorms, last_layer_gradient_norm
from kdprune.models.gradient_norms.norms import cross_entropy
from kdprune.models.locate import resolve_teacher
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.job import make_student
from kdprune.pipeline.proxies import proxy_recipe, train_proxies
from kdprune.pipeline.recording.recorded import Recorded, cost_of, model_of, placed
from kdprune.pipeline.recording.rows import record_rows
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train
from kdprune.records.rows import Column

log = logging.getLogger("kdprune")


def record_gradients(config: Config, session: Session, train: Train) -> Recorded:
    """Norms of each sample's gradient, over all parameters and over the last layer's, of R proxies."""
    if (session.data.train.labels < 0).any():
        raise ValueError(f"{config.data.dataset} has samples without a label: their loss has no gradient")
    runs, models = _proxies_at(config, session, train)
    taken = [_gradient_norms(built, session) for built in models]

    def row(batch: Batch) -> Tensor:
        both_2RN = torch.stack([norms(batch) for norms in taken], dim=1)
        return both_2RN.flatten(0, 1).T

    columns = {"gradient_norm": Column(len(models)), "last_layer_gradient_norm": Column(len(models))}
    folder = record_rows("gradients", columns, models, row, config, session, {"epoch": config.record.epoch})
    passes = len(models) * len(session.data.train)
    return Recorded([folder], cost_of(runs, forward=passes, backward=passes))


def _proxies_at(config: Config, session: Session, train: Train) -> tuple[list[Path], list[BuiltModel]]:
    """Runs of proxies, and their models after --record.epoch epochs."""
    epoch = config.record.epoch
    if epoch == 0:
        log.warning(
            "--record.epoch: 0 given; GraNd at initialisation does not find important samples (its published result "
            "came from a mistake in restoring checkpoints): take 10 to 20"
        )
        recipes = [proxy_recipe(config, repeat) for repeat in range(config.record.repeats)]
        return [], [make_student(recipe, session) for recipe in recipes]
    at = "" if epoch is None else f"@{epoch}"
    runs = train_proxies(config, session, train)
    weights = [resolve_teacher(f"{run}{at}") for run in runs]
    return runs, [model_of(path, session) for path in weights if path is not None]


def _gradient_norms(built: BuiltModel, session: Session) -> Callable[[Batch], Tensor]:
    """From a batch to both norms, 2×N."""
    inputs, tap, _ = placed(built, session)
    seen: list[tuple[Tensor, Tensor]] = []  # logits and features of the batch's forward pass

    def loss(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
        seen.append((logits_NC.detach(), tap.taken()))
        return cross_entropy(logits_NC, labels_N)

    norms = GradientNorms(built.model, loss)

    def both(batch: Batch) -> Tensor:
        seen.clear()
        with session.accelerator.autocast():
            of_all_N = norms(inputs(batch.images), batch.labels)
        logits_NC, features_NH = seen[0]  # what comes after it are single samples, to prove the norms
        of_last_N = last_layer_gradient_norm(logits_NC, features_NH, batch.labels, tap.classifier.bias is not None)
        return torch.stack([of_all_N.float(), of_last_N.float()])

    return both
