"""A data set opened for training: its splits, its identity, its decoded images."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from kdprune.config import DataConfig
from kdprune.data.fingerprint import fingerprint
from kdprune.data.images import ImageError, natural_channels, to_array
from kdprune.data.sources import check_same_classes, open_source
from kdprune.data.sources.base import Source
from kdprune.data.store import open_store, store_size
from kdprune.files import read_json, write_json

log = logging.getLogger("kdprune")

STATISTICS_FROM = 2048  # images; enough for a mean and a std to three digits


@dataclass
class Data:
    """What a run needs to know of its data.

    Attributes:
        train, test: the splits; test is None where an unlabelled transfer set has no held-out part.
        fingerprint: of the training split.
        channels: 1 or 3.
        mean, std: of the training split's pixels over 255, for models that start from scratch.
        train_images, test_images: decoded, uint8 N×C×H×W, memory-mapped; None: too large, workers decode.
        dropped: sample ids of unreadable training images (with `bad_images: drop`).
        test_dropped: the same for the held-out split.
    """

    train: Source
    test: Source | None
    fingerprint: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_images: Tensor | None
    test_images: Tensor | None
    dropped: np.ndarray
    test_dropped: np.ndarray
    workers: int

    @property
    def classes(self) -> list[str]:
        return self.train.classes or (self.test.classes if self.test else [])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def stored_size(self) -> int | None:
        """Side of the stored images in pixels, None where workers decode."""
        return None if self.train_images is None else min(self.train_images.shape[-2:])


def cache_root(root: str | None) -> Path:
    """Where downloads and decoded images live."""
    default = os.environ.get("KDPRUNE_CACHE", Path.home() / ".cache" / "kdprune")
    return Path(root or default).expanduser()


def open_data(config: DataConfig, progress: bool = True) -> Data:
    """Open both splits; decode them once if they fit the memory budget.

    Raises:
        ValueError: see `kdprune.data.sources.open_source`; a class without a name on the other side.
    """
    root = cache_root(config.root)
    train = open_source(config.dataset, "train", root)
    test = _open_test(config.dataset, root, train)
    channels = natural_channels(train)
    workers = min(16, os.cpu_count() or 1) if config.workers is None else config.workers
    budget = int(config.memory_gb * 2**30)
    stores = root / "decoded"
    print_train = fingerprint(train)
    size = store_size(train, channels, budget)
    images = test_images = None
    dropped = test_dropped = np.array([], dtype=np.int64)
    if size is not None:
        store = open_store(train, size, channels, stores, print_train, config.bad_images, workers, progress)
        images, dropped = store.images, store.bad_ids
        if test is not None:
            store = open_store(test, size, channels, stores, fingerprint(test), config.bad_images, workers, progress)
            test_images, test_dropped = store.images, store.bad_ids
    elif config.bad_images == "drop":
        dropped = _unreadable(train, stores, print_train, workers, progress)
        if test is not None:
            test_dropped = _unreadable(test, stores, fingerprint(test), workers, progress)
    mean, std = _statistics(train, images, channels, dropped)
    if len(dropped):
        log.warning("%d unreadable training images are left out: %s …", len(dropped), train.describe(int(dropped[0])))
    return Data(
        train, test, print_train, channels, mean, std, images, test_images, dropped, test_dropped, workers
    )  # fmt: skip


def _open_test(dataset: str, root: Path, train: Source) -> Source | None:
    labelled = (train.labels >= 0).all()
    try:
        test = open_source(dataset, "test", root)
    except ValueError:
        if labelled:
            raise
        log.warning("%s has no labels and no held-out part: nothing will be evaluated", dataset)
        return None
    if labelled:
        check_same_classes(dataset, train.classes, test.classes)
    return test


def _statistics(
    source: Source, images: Tensor | None, channels: int, dropped: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    ids = np.setdiff1d(source.spread(STATISTICS_FROM if images is not None else STATISTICS_FROM // 8), dropped)
    if images is not None:
        pixels = images[torch.from_numpy(ids)].movedim(1, -1).reshape(-1, channels).double()
        mean, std = pixels.mean(0), pixels.std(0)
    else:
        parts = [torch.from_numpy(to_array(source[int(i)], channels)).reshape(-1, channels) for i in ids]
        moments = torch.stack([torch.stack([p.double().mean(0), p.double().pow(2).mean(0)]) for p in parts]).mean(0)
        mean, std = moments[0], (moments[1] - moments[0] ** 2).clamp(min=0).sqrt()
    # A constant channel would be divided by zero.
    std = std.clamp(min=1.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _unreadable(source: Source, folder: Path, fingerprint: str, workers: int, progress: bool) -> np.ndarray:
    """Sample ids of the images that cannot be decoded; found once and kept beside the decoded sets."""
    path = folder / f"{fingerprint[:32]}.unreadable.json"
    if path.exists():
        return np.array(read_json(path), dtype=np.int64)

    def bad(sample_id: int) -> bool:
        try:
            source[sample_id]
        except ImageError as error:
            log.warning("%s", error)
            return True
        return False

    with ThreadPoolExecutor(max(1, workers)) as pool:
        flags = list(
            tqdm(pool.map(bad, range(len(source))), "checking images", len(source), unit="img", disable=not progress)
        )
    ids = np.flatnonzero(flags).astype(np.int64)
    write_json(path, ids.tolist())
    return ids
