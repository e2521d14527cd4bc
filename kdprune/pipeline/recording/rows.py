"""A record of rows as an artefact: made by one pass over all samples, found again, gone on with, checked."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
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

    def write(files: RowFiles) -> None:
        size, split = pass_batch(config, session), session.data.train
        write_rows(
            files, compute, split, models[0].spec, session.accelerator, workers=session.data.workers, batch_size=size
        )

    hashes = [key_hash(network_key(built)) for built in models]
    return make_rows(kind, columns, [built.name for built in models], hashes, write, config, session, more)


def make_rows(
    kind: str,
    columns: dict[str, Column],
    names: Sequence[str],
    hashes: Sequence[str],
    write: Callable[[RowFiles], None],
    config: Config,
    session: Session,
    more: Key | None = None,
) -> Path:
    """The folder of a record of rows, which are written unless they are there.

    Args:
        names: of the models that say them.
        hashes: of these models, a part of the record's key as `more` is.
        write: called on every process; the main one writes.
    """
    data, accelerator = session.data, session.accelerator
    key = {
        "version": VERSION,
        "kind": kind,
        "data": {"train": data.fingerprint, "dropped": ids_hash(data.train.unreadable)},
        "models": list(hashes),
        "precision": accelerator.mixed_precision,
        **(more or {}),
    }
    folder = Path(config.output) / RECORDS / f"{kind}-{names[0].replace('/', '_')}-{key_hash(key)[:8]}"
    origin = {"models": list(names), "precision": accelerator.mixed_precision, **(more or {})}
    about = About(kind, len(data.train), columns, data.fingerprint, tuple(data.classes), origin)
    _make(Artefact(folder, f"recorded {kind}", key), RowFiles(folder, about), write, config, session)
    return folder


def pass_batch(config: Config, session: Session) -> int:
    """Samples that a process passes through a model at a time."""
    return max(1, config.train.batch_size // session.accelerator.num_processes)


def _make(
    artefact: Artefact, files: RowFiles, write: Callable[[RowFiles], None], config: Config, session: Session
) -> None:
    accelerator = session.accelerator
    main = accelerator.is_main_process
    if _finished(artefact, config):
        return
    with artefact.owned() if main else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        if not _finished(artefact, config):  # another command may have finished it meanwhile
            if main:
                artefact.begin()
                files.create(session.data.train.labels)
                log.info("%s: %s", files.folder, in_bytes(files.about.bytes))
            accelerator.wait_for_everyone()
            write(files)
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
