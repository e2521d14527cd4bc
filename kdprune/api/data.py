"""Data as a caller has it: a name, an object, a pair of them, a dictionary of splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdprune.config import DataConfig
from kdprune.data.dataset import Data, data_of, open_data
from kdprune.data.sources.base import HELD_OUT
from kdprune.messages import unknown


def parts_of(data: Any) -> tuple[Any, Any]:
    """The training and the held-out part of what a caller gives as data; None for a held-out part that is not there.

    Args:
        data: a data set of (image, class) pairs or a Hugging Face `Dataset`; a tuple (train, test) of two; or a mapping
            of splits, such as a `DatasetDict`, in which "train" and the first of "test", "val", "valid" and
            "validation" are taken.

    Raises:
        ValueError: a mapping without "train"; a tuple of more or fewer than two.
    """
    if isinstance(data, Mapping):
        if "train" not in data:
            raise ValueError(unknown("split", "train", map(str, data)))
        return data["train"], next((data[name] for name in HELD_OUT if name in data), None)
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ValueError(f"data: a tuple of {len(data)} given, allowed is a pair (train, test)")
        return data
    return data, None


def opened(data: Any, settings: DataConfig, seed: int) -> Data:
    """Open a data set by name or as in `parts_of`, without progress bars."""
    if isinstance(data, str):
        settings.dataset = data
        return open_data(settings, seed, progress=False)
    return data_of(*parts_of(data), settings, seed, progress=False)
