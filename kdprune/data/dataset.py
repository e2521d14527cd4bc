"""A data set opened for training: its splits, its identity, its decoded images."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.config import DataConfig
from kdprune.data.decoding import Decoding
from kdprune.data.fingerprint import Identity, identify
from kdprune.data.part import Part, held_out_part
from kdprune.data.sources import check_same_classes, from_indexable, open_source
from kdprune.data.sources.base import NoHeldOut, Source, count_classes
from kdprune.data.split import Split
from kdprune.data.statistics import mean_and_std, natural_channels
from kdprune.data.store import open_store, store_size
from kdprune.data.unreadable import find_unreadable
from kdprune.data.validation import validation_ids

log = logging.getLogger("kdprune")


def no_ids() -> np.ndarray:
    return np.array([], dtype=np.int64)


@dataclass
class Data:
    """What a run needs to know of its data.

    Attributes:
        train, test: the splits; test is None where an unlabelled transfer set has no held-out part.
        fingerprint: of the training split: what sample ids belong to.
        test_fingerprint: of the held-out split: what a measured accuracy belongs to.
        mean, std: of the training split's pixels over 255, for models that start from scratch.
        workers: processes that decode where there is no store.
        validation: sample ids of the training split that nothing may be trained on, int64, ascending.
    """

    train: Split
    test: Split | None
    fingerprint: str
    test_fingerprint: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    workers: int
    validation: np.ndarray = field(default_factory=no_ids)

    @property
    def channels(self) -> int:
        """1 or 3, of all splits."""
        return self.train.channels

    @property
    def classes(self) -> list[str]:
        return self.train.classes or (self.test.classes if self.test else [])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def tests_by_validation(self) -> bool:
        """Whether the held-out split is the validation part, since the data has none of its own."""
        return self.test is not None and isinstance(self.test.source, Part)

    @property
    def stored_size(self) -> int | None:
        """Side of the stored images in pixels, None where workers decode."""
        return None if self.train.images is None else min(self.train.images.shape[-2:])


def cache_root(root: str | None) -> Path:
    """Where downloads and decoded images live."""
    default = os.environ.get("KDPRUNE_CACHE", Path.home() / ".cache" / "kdprune")
    return Path(root or default).expanduser()


def open_data(config: DataConfig, seed: int = 0, progress: bool = True) -> Data:
    """Open the data set that the settings name.

    Args:
        seed: of the validation part.
        progress: whether to show bars.

    Raises:
        ValueError: see `kdprune.data.sources.open_source`; a class without a name on the other side.
    """
    root = cache_root(config.root)
    train = open_source(config.dataset, "train", root)
    return data_of(train, _open_test(config, root, train), config, seed, progress)


def data_of(train: Any, test: Any, config: DataConfig, seed: int = 0, progress: bool = True) -> Data:
    """Open data at hand; decode its images once if they fit the memory budget.

    Args:
        train: a `Source`, a data set of (image, class) pairs with `len()` and item access, or a Hugging Face `Dataset`.
        test: the same for the held-out part. Where it is None, the validation part is that, too; without one, nothing
            is evaluated.
        config: of it, all but the name is used.
        seed, progress: see `open_data`.

    Raises:
        ValueError: see `from_indexable`; the two parts have other classes.
        ImageError: an image that cannot be read, where `bad_images` is "fail".
    """
    train, test = _at_hand(train, test)
    workers = min(16, os.cpu_count() or 1) if config.workers is None else config.workers
    decoding = Decoding(cache_root(config.root) / "decoded", config.bad_images, workers, progress)
    channels = natural_channels(train)
    size = store_size(train, channels, int(config.memory_gb * 2**30))
    identity = identify(train)
    train_split = _open_split(train, identity, channels, size, decoding)
    test_split = test_fingerprint = None
    if test is not None:
        test_identity = identify(test)
        test_split = _open_split(test, test_identity, channels, size, decoding)
        test_fingerprint = test_identity.fingerprint
    mean, std = mean_and_std(train_split)
    validation = np.setdiff1d(validation_ids(train.labels, config.val_fraction, seed), train_split.unreadable)
    if test is None and len(validation) and _labelled(train):
        test_split, test_fingerprint = held_out_part(train_split, validation, identity.fingerprint)
        log.info("%s: held out are the %d images that --data.val_fraction sets aside", train.name, len(validation))
    return Data(train_split, test_split, identity.fingerprint, test_fingerprint, mean, std, workers, validation)


def _open_test(config: DataConfig, root: Path, train: Source) -> Source | None:
    """The held-out part; None where there is none, and nothing is to be evaluated or a part of `train` will do."""
    try:
        return open_source(config.dataset, "test", root)
    except ValueError as error:
        if not _labelled(train):
            log.warning("%s has no labels and no held-out part: nothing will be evaluated", config.dataset)
            return None
        if not isinstance(error, NoHeldOut):
            raise
        if config.val_fraction == 0:
            raise NoHeldOut(
                f"{error}; or let --data.val_fraction 0.2 hold out a fifth of the images of every class"
            ) from None
        return None


def _at_hand(train: Any, test: Any) -> tuple[Source, Source | None]:
    """Both parts as sources of the same classes."""
    if not isinstance(train, Source):
        train = from_indexable(train, "train data", "train")
    if test is not None and not isinstance(test, Source):
        test = from_indexable(test, "test data", "test")
        unnamed = test.classes == count_classes(test.labels)
        if unnamed and len(test.classes) <= len(train.classes):  # it may lack samples of the last classes
            test.classes = train.classes
    if test is not None and _labelled(train):
        check_same_classes(train.name, train.classes, test.classes)
    return train, test


def _labelled(source: Source) -> bool:
    return bool((source.labels >= 0).all())


def _open_split(
    source: Source, identity: Identity, channels: int, size: tuple[int, int] | None, decoding: Decoding
) -> Split:
    """A split with its decoded images if a store has this size, else with what is known of unreadable images."""
    images, unreadable = None, no_ids()
    if size is not None:
        images, unreadable = open_store(source, identity, size, channels, decoding)
    elif decoding.bad_images == "drop":
        unreadable = find_unreadable(source, identity, decoding)
    if len(unreadable):
        log.warning(
            "%s (%s): %d unreadable images are dropped, the first is %s",
            source.name, source.split, len(unreadable), source.describe(int(unreadable[0])),
        )  # fmt: skip
    return Split(source, channels, images, unreadable)
