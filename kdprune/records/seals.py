"""Whether what was recorded before a checkpoint is still what was written, in files that are written in place.

Such a file goes on changing after the checkpoint, and a training that goes on from there writes the rest of it again.
So a seal says which samples were there, and holds a digest of their values alone.

Shapes: N samples of the unpruned training set, V values of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash


def seal(values_NV: np.ndarray) -> dict[str, Any]:
    """Which samples have values, a bit each, and the XXH3-128 of these; tensors and texts, for a checkpoint."""
    there_N = ~np.isnan(values_NV).all(1)
    return {"there": torch.from_numpy(np.packbits(there_N)), "digest": _digest(values_NV, there_N)}


def is_unbroken(seal: Mapping[str, Any], values_NV: np.ndarray) -> bool:
    """Whether the values of a seal's samples are those that it was made of."""
    there_N = np.unpackbits(seal["there"].numpy(), count=len(values_NV)).astype(bool)
    return _digest(values_NV, there_N) == seal["digest"]


def changed(path: Path) -> str:
    """What is said of a broken seal."""
    return (
        f"{path} is not what was written before the training was stopped: remove the run's folders checkpoints/ and "
        "dynamics/, it is then trained from the start"
    )


def _digest(values_NV: np.ndarray, there_N: np.ndarray) -> str:
    return xxhash.xxh3_128(np.ascontiguousarray(values_NV[there_N]).tobytes()).hexdigest()
