"""What a teacher says of each sample: everything that one forward pass gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kdprune.config import Config
from kdprune.data.reader import Batch
from kdprune.models.gradient_norms import last_layer_gradient_norm
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.recording.recorded import Recorded, cost_of, placed
from kdprune.pipeline.recording.rows import record_rows, width_of
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train, load_teachers, requested_teachers
from kdprune.records.rows import Column
from kdprune.records.statistics import STATISTICS, statistics

OF_TEACHER = tuple(name for name in STATISTICS if name != "kl")


def record_teacher(config: Config, session: Session, train: Train) -> Recorded:
    """Everything that a forward pass of a teacher gives: statistics of its predictions, the norm of the last layer's
    gradient, features. Of several teachers it is a record each, over which scores are averaged."""
    if not requested_teachers(config):
        raise ValueError("--teacher.models: no teacher given, and what a teacher says of each sample is to be recorded")
    loaded = load_teachers(config, session, train)
    folders = list(dict.fromkeys(_of_teacher(replace(one.built), config, session) for one in loaded))
    return Recorded(folders, cost_of(forward=len(folders) * len(session.data.train)))


def _of_teacher(built: BuiltModel, config: Config, session: Session) -> Path:
    _, tap, logits = placed(built, session)
    bias = tap.classifier.bias is not None

    def row(batch: Batch) -> Tensor:
        z_NC, features_NH = logits(batch.images).float(), tap.taken().float()
        of_prediction_SN = statistics(z_NC, batch.labels)[: len(OF_TEACHER)]
        norm_N = last_layer_gradient_norm(z_NC, features_NH, batch.labels.clamp(min=0), bias)
        norm_N = norm_N.masked_fill(batch.labels < 0, torch.nan)
        return torch.cat([of_prediction_SN.T, norm_N[:, None], features_NH], dim=1)

    width = width_of(row, session, built) - len(OF_TEACHER) - 1
    columns = {name: Column(0) for name in (*OF_TEACHER, "last_layer_gradient_norm")}
    folder = record_rows("teacher", {**columns, "features": Column(width, "float16")}, [built], row, config, session)
    tap.close()
    built.model.to("cpu")  # one teacher on the device at a time
    return folder
