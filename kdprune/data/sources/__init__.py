"""Open a data set by its name: `digits`, `torch/NAME`, `hfds/NAME_OR_FOLDER` or a folder of images."""

from __future__ import annotations

from pathlib import Path

from kdprune.data.sources.base import Source, check_same_classes, check_split
from kdprune.data.sources.digits import Digits
from kdprune.data.sources.folder import open_folder
from kdprune.data.sources.huggingface import open_huggingface
from kdprune.data.sources.indexable import from_indexable
from kdprune.data.sources.paths import existing_folder, nearest_sibling
from kdprune.data.sources.torchvision import DATASETS, open_torchvision
from kdprune.messages import unknown

__all__ = ["Source", "check_same_classes", "from_indexable", "open_source"]

KINDS = ("digits", "torch/NAME", "hfds/NAME", "hfds/FOLDER of parquet files", "FOLDER of images")


def open_source(dataset: str, split: str, root: str | Path | None = None) -> Source:
    """Open one split of a data set. Images decode when they are asked for.

    Args:
        dataset: `digits` (scikit-learn's 8×8 scans, no download), `torch/NAME` (torchvision, downloaded into `root`),
            `hfds/FOLDER` (parquet files), `hfds/NAME` (Hugging Face hub) or the path of a folder of images.
        split: "train", or "test" for the held-out split, whatever the data set calls it.
        root: where downloads go, and where relative folders are looked for too.

    Raises:
        ValueError: an unknown name or folder, a split that is not there, labels out of range; the message says what
            is allowed and the nearest name.
    """
    check_split(split)
    dataset = str(dataset)
    kind, _, rest = dataset.partition("/")
    if dataset == "digits":
        return Digits(split)
    if kind == "torch" and rest:
        return open_torchvision(rest, split, root)
    if kind == "hfds" and rest:
        return open_huggingface(rest, split, root)
    folder = existing_folder(dataset, root) if dataset else None
    if folder is None:
        raise ValueError(_unknown_dataset(dataset))
    if any(folder.glob("*.parquet")):
        raise ValueError(f"{dataset} is a folder of parquet files; did you mean 'hfds/{dataset}'?")
    return open_folder(folder, dataset, split)


def _unknown_dataset(dataset: str) -> str:
    if dataset.lower() in DATASETS:
        return f"unknown data set {dataset!r}; did you mean 'torch/{dataset.lower()}'? (allowed: {', '.join(KINDS)})"
    hint = "" if dataset in ("", "torch", "hfds", "torch/", "hfds/") else nearest_sibling(dataset)
    return unknown("data set", dataset, KINDS) + (f"; no such folder{hint}" if hint else "")
