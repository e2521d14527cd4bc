"""Rows of anything that a model says of samples (logits, embeddings, losses), in the order of their ids.

Shapes: N samples, W processes, P samples of a process.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from accelerate.utils import gather
from torch import Tensor

from kdprune.data.place import Place
from kdprune.data.reader import Batch, InputSize, plain_batches
from kdprune.data.split import Split


@torch.no_grad()
def predict(
    what: Callable[[Batch], Tensor],
    split: Split,
    ids: np.ndarray,
    spec: InputSize,
    place: Place,
    batch_size: int = 512,
) -> Tensor:
    """`what` of samples without augmentation; every process computes a part and gets all of it.

    Args:
        what: from a batch to a row for each of its samples, on the device; a row depends on nothing but its sample.
        split: where the samples are from.
        ids: sample ids, at least one, in any order.
        spec: the model's input.

    Returns:
        N×… on the device, row n for ids[n].

    Raises:
        ValueError: no ids.
    """
    if not len(ids):
        raise ValueError("there are no samples to predict for")
    # Processes gather parts of equal length, so the last ones may take samples that the first ones have already.
    padded_ids = np.resize(ids, -(-len(ids) // place.world) * place.world)
    parts = [what(batch) for batch in plain_batches(split, padded_ids, spec, place, batch_size)]
    rows_P = torch.cat(parts)
    if place.world == 1:
        return rows_P
    rows_WP = gather(rows_P.contiguous()).unflatten(0, (place.world, -1))
    return rows_WP.transpose(0, 1).flatten(0, 1)[: len(ids)]  # sample n was read by process n mod W
