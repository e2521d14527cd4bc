"""Images a second from JPEG files through worker processes, beside timm's loader and torchvision's transforms.

    python benchmarks/reader.py                                 # random resized crop and flip to 224 and to 128 px
    python benchmarks/reader.py --sizes 224 --workers 8 --images 4000

All read the same files of 500×375 pixels, made for the time, crop them at random, scale bilinearly with antialiasing
and flip half of the images:

    kdprune                uint8 views on the device, as the trainer gets them
    kdprune_normalised     the same, made floats and normalised as a convolutional student gets them
    timm                   `create_dataset` and `create_loader` as timm's train.py calls them, which normalises
    torchvision            transforms.v2 on tensors of its own JPEG decoder, uint8, in a DataLoader

They take turns. Each turn starts its workers anew and is timed from when as many batches as workers have come, so that
their start does not count. Prints a line of JSON for each size: medians of images a second and, of all processes
together and with their start, of milliseconds of a processor for an image, which others on the machine disturb less;
and of the ratios of turns: `ratio` of kdprune to timm in images a second (to reach: 1.9), and the same for the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2

from kdprune.data.dataset import no_ids
from kdprune.data.place import Place
from kdprune.data.reader import Reader
from kdprune.data.recipe import parse
from kdprune.data.sources import open_source
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec

HEIGHT, WIDTH = 375, 500
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")

Side = Callable[[int, argparse.Namespace, Path], Iterator[Any]]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_images(Path(folder), options.images)
        for size in options.sizes:
            print(json.dumps(compare(size, options, Path(folder))), flush=True)


def compare(size: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All sides at one size."""
    sides: dict[str, Side] = {
        "kdprune": kdprune_batches, "kdprune_normalised": partial(kdprune_batches, normalised=True),
        "timm": timm_batches, "torchvision": torchvision_batches,
    }  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-1, options.rounds):
        for name, side in sides.items():
            begun = processor_seconds()
            rate = measure(side(size, options, folder), options)
            if turn >= 0:  # the first turn brings the files into memory
                rates[name].append(rate)
                processor[name].append(1000 * (processor_seconds() - begun) / options.images)
    ratios = {
        f"ratio_{name}": statistics.median(own / peer for own, peer in zip(values, rates["timm"], strict=True))
        for name, values in rates.items()
        if name != "timm"
    }
    return {
        "benchmark": "reader", "image_size": size, "images": f"{WIDTH}x{HEIGHT}", "workers": options.workers,
        "batch": options.batch, "cores": os.cpu_count(), "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 2), "torch": torch.__version__, "torchvision": torchvision.__version__,
        "timm": timm.__version__, "rounds": options.rounds,
        "images_per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
        "processor_ms": {name: round(statistics.median(values), 2) for name, values in processor.items()},
        "ratio": round(ratios.pop("ratio_kdprune"), 2), **{name: round(ratio, 2) for name, ratio in ratios.items()},
    }  # fmt: skip


def measure(batches: Iterator[Any], options: argparse.Namespace) -> float:
    """Images a second, after every worker's first batch."""
    for _ in range(max(1, options.workers)):
        next(batches)
    begun = time.perf_counter()
    count = sum(options.batch for _ in batches)
    return count / (time.perf_counter() - begun)


def processor_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def requests(options: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Sample ids and views of the whole batches."""
    ids = torch.randperm(options.images)[: options.images // options.batch * options.batch]
    return [(part, torch.zeros_like(part)) for part in ids.split(options.batch)]


def kdprune_batches(size: int, options: argparse.Namespace, folder: Path, normalised: bool = False) -> Iterator[Tensor]:
    """By the reader."""
    source = open_source(str(folder), "train")
    settings = ViewSettings(parse("rrc+flip"), size, 0, (124, 116, 104), stored=False)
    split = Split(source, 3, None, no_ids())
    reader = Reader(split, settings, np.arange(len(source)), len(source.classes), Place(CPU, options.workers))
    inputs = Inputs(InputSpec(3, size, MEAN, STD), channels_last=True)
    for batch in reader.read(requests(options)):
        yield inputs(batch.images) if normalised else batch.images


def timm_batches(size: int, options: argparse.Namespace, folder: Path) -> Iterator[Tensor]:
    """By timm's loader, which drops the last part of a batch."""
    dataset = create_dataset("", root=str(folder), split="train", is_training=True, batch_size=options.batch)
    loader: Iterable[Any] = create_loader(
        dataset, (3, size, size), options.batch, is_training=True, hflip=0.5, color_jitter=0.0,
        interpolation="bilinear", mean=MEAN, std=STD, num_workers=options.workers, device=CPU,
    )  # fmt: skip
    for images, _ in loader:
        yield images


class TensorFiles(Dataset):
    """Files decoded and transformed by torchvision."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files = sorted(str(file) for file in folder.glob("train/*/*.jpg"))
        self.transform = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Tensor:
        image: Tensor = self.transform(decode_jpeg(read_file(self.files[i])))
        return image


def torchvision_batches(size: int, options: argparse.Namespace, folder: Path) -> Iterator[Tensor]:
    """By torch's own loader."""
    loader = DataLoader(
        TensorFiles(folder, size), options.batch, shuffle=True, drop_last=True, num_workers=options.workers
    )
    yield from loader


def write_images(folder: Path, count: int) -> None:
    """Two classes of images of waves, edges and noise, whose files are as large as those of photos of their size."""
    numbers = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for label in range(2):
        (folder / "train" / f"class{label}").mkdir(parents=True)
    for i in range(count):
        waves = [
            np.sin(y / numbers.uniform(5, 60) + numbers.uniform(0, 6)) + np.sin(x / numbers.uniform(5, 60))
            for _ in range(3)
        ]
        pixels = np.stack(waves, -1) * 45 + 128 + numbers.normal(0, 7, (HEIGHT, WIDTH, 1))
        top, left = numbers.integers(HEIGHT // 2), numbers.integers(WIDTH // 2)
        pixels[top : top + 120, left : left + 150] += numbers.uniform(-80, 80, 3)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / "train" / f"class{i % 2}" / f"{i}.jpg", quality=85)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 128])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=768, help="of a turn; whole batches of them are read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files are made for the time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
