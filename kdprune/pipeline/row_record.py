"""A record of rows as an artefact: made by one pass over all samples, found again, gone on with, checked."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from kdprune.artefact import Artefact, Key, damage, key_hash
from kdprune.config import Config
from kdprune.data.reader import plain_batches
from kdprune.files import in_bytes
from kdprune.models.spec import BuiltModel
from kdprune.passes.rows import Compute, write_rows
from kdprune.pipeline.keys import ids_hash, network_key
from kdprune.pipeline.proxies import RECORDS
from kdprune.pipeline.session import Session
from kdprune.records.rows import About, Column, RowFiles

log = logging.getLogger("kdprune")

VERSION = 1  # of the passes: to be raised with a change after which they write other values


def width_of(compute: Compute, session: Session, built: BuiltModel) -> int:
    """How many values a row has, seen on two samples."""
    readable = session.data.train.readable[: 2 * session.place.world]
    with torch.no_grad():
        return compute(next(plain_batches(session.data.train, readable, built.spec, session.place))).shape[1]


def record_rows(
    kind: str,
    columns: dict[str, Column],
    models: Sequence[BuiltModel],
    compute: Compute,
    config: Config,
    session: Session,
    more: Key | None = None,
) -> Path:
    """The folder of a record of rows, made by a pass over all samples unless it is there."""
    data, accelerator = session.data, session.accelerator
    key = {
        "version": VERSION,
        "kind": kind,
        "data": {"train": data.fingerprint, "dropped": ids_hash(data.train.unreadable)},
        "models": [key_hash(network_key(built)) for built in models],
        "precision": accelerator.mixed_precision,
        **(more or {}),
    }
    folder = Path(config.output) / RECORDS / f"{kind}-{models[0].name.replace('/', '_')}-{key_hash(key)[:8]}"
    artefact = Artefact(folder, f"recorded {kind}", key)
    origin = {"models": [built.name for built in models], "precision": accelerator.mixed_precision, **(more or {})}
    about = About(kind, len(data.train), columns, data.fingerprint, tuple(data.classes), origin)
    _make(artefact, RowFiles(folder, about), compute, models[0], config, session)
    return folder


def _make(
    artefact: Artefact, files: RowFiles, compute: Compute, built: BuiltModel, config: Config, session: Session
) -> None:
    data, accelerator = session.data, session.accelerator
    main = accelerator.is_main_process
    if _finished(artefact, config):
        return
    with artefact.owned() if main else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        if not _finished(artefact, config):  # another command may have finished it meanwhile
            if main:
                artefact.begin()
                files.create(data.train.labels)
                log.info("%s: %s", files.folder, in_bytes(files.about.bytes))
            accelerator.wait_for_everyone()
            batch_size = max(1, config.train.batch_size // accelerator.num_processes)
            write_rows(files, compute, data.train, built.spec, accelerator, workers=data.workers, batch_size=batch_size)
            if main:
                artefact.finish(files.names())
        accelerator.wait_for_everyone()


def _finished(artefact: Artefact, config: Config) -> bool:
    """Whether a record is there and whole, as the main process sees it: all must go the same way."""
    seen: list[Any] = [None]
    if PartialState().is_main_process:
        seen = [artefact.finished]
        if seen[0] and (found := damage(artefact.folder)):
            if not config.remake:
                raise ValueError(f"{'; '.join(found)}. The record was finished: --remake true makes it again")
            for path in artefact.folder.glob("*.npy"):
                path.unlink()
            artefact.reopen()
            seen = [False]
    broadcast_object_list(seen)
    return seen[0]
