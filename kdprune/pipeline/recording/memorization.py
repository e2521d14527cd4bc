"""How many models are right about each sample, of those that saw it and of those that did not: one model after another.

What is held of a sample is two counts, however many models there are. They are written after each model, so that a pass
that was stopped goes on with the next one.

Shapes: N samples of the unpruned training set, P of them that some model saw.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm.auto import tqdm

from kdprune import bars
from kdprune.artefact import key_hash, read_record
from kdprune.config import Config
from kdprune.data.reader import Batch
from kdprune.data.subset import load_subset
from kdprune.files import load_array, write_whole
from kdprune.models.spec import BuiltModel
from kdprune.passes.evaluation import student_logits
from kdprune.passes.predict import predict
from kdprune.pipeline.proxies import train_on_parts
from kdprune.pipeline.recording.recorded import Recorded, cost_of, model_of
from kdprune.pipeline.recording.rows import make_rows, pass_batch
from kdprune.pipeline.session import Session
from kdprune.pipeline.student import place
from kdprune.pipeline.teachers import Train
from kdprune.records.rows import Column, RowFiles
from kdprune.runs.reading import SUBSET, WEIGHTS, read_summary
from kdprune.training.interrupt import Interrupted, StopRequest

log = logging.getLogger("kdprune")

COLUMNS = ("trained", "untrained", "right_trained", "right_untrained")
PARTIAL = ".counts.npy"  # in the folder of a record that is not finished


def record_memorization(config: Config, session: Session, train: Train) -> Recorded:
    """Whether each of M models that saw a part of the data is right about each sample, and whether it saw it."""
    repeats, fraction = config.record.repeats, config.record.train_fraction
    if repeats < 4:
        raise ValueError(
            f"--record.repeats: {repeats} given, and memorization compares models that saw a sample with models that "
            "did not: allowed are 4 and more (Feldman & Zhang 2020 took 2,000 for ImageNet, 4,000 for CIFAR-100)"
        )
    log.info("memorization: %d trainings on %.0f%% of the data each, or found", repeats, 100 * fraction)
    runs = train_on_parts(config, session, train)
    folder = record_counts(runs, partial(model_of, session=session), config, session)
    return Recorded([folder], cost_of(runs, forward=len(runs) * len(session.data.train)))


def record_counts(runs: Sequence[Path], load: Callable[[Path], BuiltModel], config: Config, session: Session) -> Path:
    """The folder of the record of finished runs on parts of the data, made unless it is there.

    Args:
        load: gives the model of a weights file.
    """
    hashes, parts = [], hashlib.sha256()
    for run in runs:
        record = read_record(run)
        assert record is not None, f"{run} is finished"
        hashes.append(key_hash(record["key"]))
        parts.update(load_subset(run / SUBSET).hash.encode())
    columns = {name: Column(0) for name in COLUMNS}
    names = [read_summary(run)["student"]["name"] for run in runs]
    write = partial(_write, runs=runs, load=load, config=config, session=session)
    return make_rows("memorization", columns, names, hashes, write, config, session, {"parts": parts.hexdigest()})


def _write(
    files: RowFiles, runs: Sequence[Path], load: Callable[[Path], BuiltModel], config: Config, session: Session
) -> None:
    data, main = session.data, session.accelerator.is_main_process
    # Those of the validation part are in no training's part, so nothing can be said of them.
    ids_P = np.setdiff1d(data.train.readable, data.validation)
    right_2N, done = _resumed(files, len(data.train), session)
    trained_N = np.zeros(len(data.train), dtype=np.int32)
    quiet = None if main and bars.shown() else True
    with (
        StopRequest() as stop,
        tqdm(total=len(runs), initial=done, desc="recording memorization", disable=quiet) as bar,
    ):
        for number, run in enumerate(runs):
            was_seen_N = np.zeros(len(data.train), dtype=bool)
            was_seen_N[load_subset(run / SUBSET).ids] = True
            trained_N += was_seen_N
            if number < done:
                continue
            is_right_P = _right(load(run / WEIGHTS), ids_P, config, session)
            right_2N[0, ids_P] += is_right_P & was_seen_N[ids_P]
            right_2N[1, ids_P] += is_right_P & ~was_seen_N[ids_P]
            if main:
                counts = np.concatenate([[number + 1], right_2N.ravel()]).astype(np.int32)
                write_whole(files.folder / PARTIAL, partial(np.save, arr=counts, allow_pickle=False))
            bar.update()
            signals = [stop.signal]
            broadcast_object_list(signals)  # all processes stop, or none: each needs the others
            if signals[0] and number + 1 < len(runs):
                raise Interrupted(
                    f"{signals[0]}: stopped after {number + 1} of {len(runs)} models; the same command goes on"
                )
    if main:
        _finish(files, ids_P, np.stack([trained_N, len(runs) - trained_N, *right_2N]))


def _right(built: BuiltModel, ids_P: np.ndarray, config: Config, session: Session) -> np.ndarray:
    """Whether a model is right about each sample, bool P; it leaves the device afterwards."""
    inputs = place(built, session.accelerator.device)
    logits = student_logits(built.model.eval(), inputs, session.accelerator)

    def is_right(batch: Batch) -> Tensor:
        return (logits(batch.images).argmax(1) == batch.labels).to(torch.uint8)

    size = pass_batch(config, session)
    right_P = predict(is_right, session.data.train, ids_P, built.spec, session.place, size)
    built.model.to("cpu")
    return right_P.bool().cpu().numpy()


def _resumed(files: RowFiles, total: int, session: Session) -> tuple[np.ndarray, int]:
    """Counts so far, int32 2×N, on the main process, and of how many models they are."""
    counts = np.zeros(1 + 2 * total, dtype=np.int32)
    if session.accelerator.is_main_process and (files.folder / PARTIAL).is_file():
        stored = load_array(files.folder / PARTIAL)
        if stored.shape != counts.shape or stored.dtype != counts.dtype:
            raise ValueError(f"{files.folder / PARTIAL} is damaged: remove it, to begin again")
        counts[:] = stored
    done = [int(counts[0])]
    broadcast_object_list(done)
    return counts[1:].reshape(2, total), done[0]


def _finish(files: RowFiles, ids_P: np.ndarray, counts_4N: np.ndarray) -> None:
    """Write the columns, NaN where nothing is known."""
    values_4N = np.full(counts_4N.shape, np.nan, dtype=np.float32)
    values_4N[:, ids_P] = counts_4N[:, ids_P]
    for shard in range(files.about.shards):
        ids = files.about.ids(shard)
        files.write(shard, dict(zip(COLUMNS, values_4N[:, ids], strict=True)))
    (files.folder / PARTIAL).unlink(missing_ok=True)
