"""A pass over all samples that writes rows of what a model says of each, shard by shard.

Shapes: N samples of the unpruned training set, P of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm.auto import tqdm

from kdprune import bars
from kdprune.data.place import Place
from kdprune.data.reader import Batch, InputSize
from kdprune.data.split import Split
from kdprune.passes.predict import predict
from kdprune.records.rows import RowFiles
from kdprune.records.statistics import OF_LABELS
from kdprune.training.interrupt import Interrupted, StopRequest

LABEL_COLUMNS = (*OF_LABELS, "last_layer_gradient_norm")  # NaN where a sample has no label

Compute = Callable[[Batch], Tensor]
"""From a batch to a row for each of its samples, on the device: all columns side by side, float32 P×W."""


def write_rows(
    files: RowFiles, compute: Compute, split: Split, spec: InputSize, accelerator: Accelerator, **settings: Any
) -> int:
    """Write the missing shards of a record; every process computes a part, the main one writes.

    Args:
        compute: what is recorded, in the order of the record's columns.
        spec: the model's input.
        settings: `workers` and `batch_size` of the pass.

    Returns:
        samples that were passed through the model.

    Raises:
        Interrupted: SIGINT or SIGTERM came; whole shards are kept.
        ValueError: a value that is NaN or infinite, with the samples' ids.
    """
    place = Place.of(accelerator, settings["workers"])
    missing = [shard for shard in range(files.about.shards) if not files.has(shard)]
    run = partial(predict, compute, split, spec=spec, place=place, batch_size=settings["batch_size"])
    quiet = None if accelerator.is_main_process and bars.shown() else True
    done = 0
    total = sum(len(files.about.ids(shard)) for shard in missing)
    with (
        StopRequest() as stop,
        tqdm(total=total, desc=f"recording {files.about.kind}", unit="img", disable=quiet) as bar,
    ):
        for shard in missing:
            ids = files.about.ids(shard)
            readable = np.setdiff1d(ids, split.unreadable)
            rows = run(ids=readable).float().cpu().numpy() if len(readable) else np.empty((0, _width(files)))
            if accelerator.is_main_process:
                files.write(shard, _columns(files, ids, readable, rows, split.labels))
            accelerator.wait_for_everyone()
            done += len(readable)
            bar.update(len(ids))
            signals = [stop.signal]
            broadcast_object_list(signals)  # all processes stop, or none: each needs the others
            if signals[0]:
                raise Interrupted(f"{signals[0]}: stopped with {done:,} of {total:,} rows; the same command goes on")
    return done


def _width(files: RowFiles) -> int:
    return sum(max(1, column.width) for column in files.about.columns.values())


def _columns(
    files: RowFiles, ids: np.ndarray, readable: np.ndarray, rows_PW: np.ndarray, labels_N: np.ndarray
) -> Mapping[str, np.ndarray]:
    """The rows of a shard by column, with NaN for samples that cannot be read."""
    has_label_P = labels_N[readable] >= 0
    found: dict[str, np.ndarray] = {}
    start = 0
    for name, column in files.about.columns.items():
        width = max(1, column.width)
        values = rows_PW[:, start : start + width].astype(column.dtype)
        start += width
        is_wrong_P = ~np.isfinite(values).all(1)
        if name in LABEL_COLUMNS:
            is_wrong_P &= has_label_P
        if len(wrong := readable[is_wrong_P]):
            raise ValueError(
                f"{files.folder}: {name} of {len(wrong):,} samples is not finite as {column.dtype} "
                f"(ids {', '.join(map(str, wrong[:5]))}{' …' if len(wrong) > 5 else ''})"
            )
        whole = np.full((len(ids), width), np.nan, dtype=column.dtype)
        whole[readable - ids[0]] = values
        found[name] = whole if column.width else whole[:, 0]
    return found
