"""`torch/NAME`: the classification data sets of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdprune.data.sources.base import Source
from kdprune.data.sources.indexable import Indexable
from kdprune.messages import unknown

# name in lower case → (class in torchvision.datasets, its argument for the split, values for train and test)
DATASETS: dict[str, tuple[str, str, Any, Any]] = {
    "cifar10": ("CIFAR10", "train", True, False),
    "cifar100": ("CIFAR100", "train", True, False),
    "country211": ("Country211", "split", "train", "test"),
    "dtd": ("DTD", "split", "train", "test"),
    "emnist": ("EMNIST", "train", True, False),
    "fashionmnist": ("FashionMNIST", "train", True, False),
    "fgvcaircraft": ("FGVCAircraft", "split", "trainval", "test"),
    "flowers102": ("Flowers102", "split", "train", "test"),
    "food101": ("Food101", "split", "train", "test"),
    "gtsrb": ("GTSRB", "split", "train", "test"),
    "imagenet": ("ImageNet", "split", "train", "val"),
    "imagenette": ("Imagenette", "split", "train", "val"),
    "kmnist": ("KMNIST", "train", True, False),
    "mnist": ("MNIST", "train", True, False),
    "oxfordiiitpet": ("OxfordIIITPet", "split", "trainval", "test"),
    "pcam": ("PCAM", "split", "train", "test"),
    "qmnist": ("QMNIST", "train", True, False),
    "renderedsst2": ("RenderedSST2", "split", "train", "test"),
    "stl10": ("STL10", "split", "train", "test"),
    "svhn": ("SVHN", "split", "train", "test"),
    "usps": ("USPS", "train", True, False),
}
EXTRA: dict[str, dict[str, Any]] = {"emnist": {"split": "balanced"}}
NO_DOWNLOAD = ("imagenet",)  # its licence asks for a registration


class Torchvision(Indexable):
    kind = "torch"


def open_torchvision(name: str, split: str, root: str | Path | None) -> Source:
    """Open `torch/name`, downloading it into `root` (default: ~/.cache/kdprune) when it is not there.

    Raises:
        ValueError: unknown name, or the data can be neither found nor downloaded.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in DATASETS:
        raise ValueError(unknown("torchvision data set", name, DATASETS))
    import torchvision.datasets

    class_name, argument, train, test = DATASETS[key]
    folder = Path(root or "~/.cache/kdprune").expanduser()
    options = {argument: train if split == "train" else test, **EXTRA.get(key, {})}
    if key not in NO_DOWNLOAD:
        folder.mkdir(parents=True, exist_ok=True)
        options["download"] = True
    try:
        dataset = getattr(torchvision.datasets, class_name)(str(folder), **options)
    except Exception as error:  # the network's and the archives' many ways to fail
        raise ValueError(f"torch/{key}: cannot be opened in {folder} or downloaded to it: {error}") from error
    return Torchvision(dataset, f"torch/{key}", split)
