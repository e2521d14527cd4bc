"""Anything that yields (image, class) by index, such as a torch Dataset, as a source."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from kdprune.data.images import ImageError
from kdprune.data.sources.base import Source, count_classes

LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "samples", "_samples", "imgs")


class Indexable(Source):
    kind = "indexable"

    def __init__(self, dataset: Any, name: str, split: str, classes: Sequence[str] | None = None) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()  # the data set is a stranger's: nothing says that threads may share it
        labels = _all_labels(dataset, name)
        super().__init__(name, split, labels, _class_names(dataset, labels) if classes is None else classes)

    def _open(self, sample_id: int) -> Image.Image:
        with self._lock:
            image = _pair(self._dataset, sample_id, self.name)[0]
        return _to_pil(image, self.describe(sample_id))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def from_indexable(dataset: Any, name: str, split: str, classes: Sequence[str] | None = None) -> Source:
    """A source from a data set of (image, class) pairs, for example a torch `Dataset` without transforms.

    The image is a PIL image, a uint8 array of shape (H, W) or (H, W, C), or a uint8 tensor of shape (C, H, W) or
    (H, W). Labels are read from the usual attributes (`targets`, `labels`, `samples`) where these agree with the items;
    otherwise every item is read once. A Hugging Face `Dataset` is taken as it is.

    Args:
        dataset: has `len()` and gives (image, class) for every index from 0.
        name: what to call it in messages.
        split: "train" or "test".
        classes: class names in label order; by default `dataset.classes`, or else "0", "1", ….

    Raises:
        ValueError: the data set is a stream, or its items are not pairs of an image and a class.
    """
    if isinstance(dataset, torch.utils.data.IterableDataset) or not _is_indexable(dataset):
        raise ValueError(
            f"{name}: {type(dataset).__name__} can only be iterated over, and a sample is known here by its index: "
            "in a stream no index exists. Give a data set with len() and item access (Hugging Face: without streaming)"
        )
    if type(dataset).__module__.startswith("datasets."):
        from kdprune.data.sources.huggingface import from_dataset

        return from_dataset(dataset, name, split, classes)
    return Indexable(dataset, name, split, classes)


def _is_indexable(dataset: Any) -> bool:
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return False
    try:
        len(dataset)
    except TypeError:
        return False
    return True


def _pair(dataset: Any, index: int, name: str) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise ValueError(f"{name}: item {index} is a {type(item).__name__}, not a pair (image, class)")
    return item[0], item[1]


def _label(value: Any, index: int, name: str) -> int:
    if value is None:
        return -1
    try:
        label = int(value)
    except (TypeError, ValueError):
        label = None
    if label is None or label != value:
        raise ValueError(f"{name}: the class of item {index} is {value!r}, not a whole number") from None
    return label


def _all_labels(dataset: Any, name: str) -> np.ndarray:
    count = len(dataset)
    if not count:
        return np.zeros(0, dtype=np.int64)
    for attribute in LABEL_ATTRIBUTES:
        labels = _as_labels(getattr(dataset, attribute, None), count)
        if labels is not None and _agrees(dataset, labels, name):
            return labels
    return np.array([_label(_pair(dataset, index, name)[1], index, name) for index in range(count)], dtype=np.int64)


def _as_labels(values: Any, count: int) -> np.ndarray | None:
    """Labels from an attribute: `count` whole numbers, or `count` tuples that end in one, as in `samples`."""
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
        return None
    try:
        if isinstance(values[0], tuple | list):
            values = [value[-1] for value in values]
        labels = np.asarray(values)
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else None


def _agrees(dataset: Any, labels: np.ndarray, name: str) -> bool:
    """Whether items have the labels of the attribute; a target transform or an overridden item makes them differ."""
    if getattr(dataset, "target_transform", None) is not None:
        return False
    some = np.unique(np.linspace(0, len(labels) - 1, min(16, len(labels))).astype(int))
    try:
        return all(_label(_pair(dataset, int(i), name)[1], int(i), name) == labels[i] for i in some)
    except OSError:  # an image that cannot be read says nothing about labels
        return True


def _class_names(dataset: Any, labels: np.ndarray) -> list[str]:
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return list(names)
    return count_classes(labels)


def _to_pil(image: Any, where: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise ImageError(f"{where} is a {type(image).__name__} (allowed: PIL image, uint8 array, uint8 tensor)")
    if array.dtype != np.uint8:
        raise ImageError(f"{where} has values of type {array.dtype}, not uint8: give the data set without transforms")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise ImageError(
            f"{where} has shape {tuple(image.shape)} "
            "(allowed: arrays H×W or H×W×C, tensors C×H×W or H×W; C is 1, 3 or 4)"
        )
    return Image.fromarray(np.ascontiguousarray(array))
