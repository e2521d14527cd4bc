"""Scoring against the passes that it cannot do without, interleaved in one process.

    python benchmarks/scoring.py                       # all of them
    python benchmarks/scoring.py gradient_norms        # some
    python benchmarks/scoring.py --threads 2 --seconds 20

Each prints lines of JSON with a ratio, bare seconds / scoring seconds:

    gradient_norms    exact norms over all parameters, of a plain forward and backward pass
                      (to reach: 0.8 for a CIFAR ResNet-18, 0.6 for a small ViT)
    last_layer        the last layer's norm in closed form, of a forward pass (to reach: 0.9)
    record_pass       statistics of plain images into a record, of a forward pass (to reach: 0.95)
    record_training   a training whose views are recorded, of the same training without (to reach: 0.98)
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from step import CLASSES as STEP_CLASSES
from step import MEAN, STD, random_split, reader_of, step_config, steps_of
from torch import Tensor, nn

from kdprune.data.place import Place
from kdprune.data.reader import Batch, plain_batches
from kdprune.models.build import build_student
from kdprune.models.gradient_norms import GradientNorms, last_layer_gradient_norm
from kdprune.models.penultimate import Penultimate
from kdprune.pipeline.student import place
from kdprune.records.dynamics import About, DynamicsFiles
from kdprune.runs.accelerator import device_name, make_accelerator
from kdprune.training.observers import Observer
from kdprune.training.recorder import PlainImages, TrainingViews

CLASSES = 10
Row = dict[str, Any]


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.benchmarks or BENCHMARKS:
        for row in BENCHMARKS[name](options):
            machine = {"hardware": device_name(_device()), "threads": torch.get_num_threads()}
            print(
                json.dumps({"benchmark": f"scoring.{name}", **machine, "torch": torch.__version__, **row}), flush=True
            )


def gradient_norms(options: argparse.Namespace) -> Iterator[Row]:
    """`GradientNorms` against `sum(losses).backward()` in the same mode, for a CIFAR ResNet-18 and a ViT-Tiny."""
    for name, model in _models().items():
        images, labels = _batch(options.batch)
        norms = GradientNorms(model)

        def bare(model: nn.Module = model, images: Tensor = images, labels: Tensor = labels) -> None:
            F.cross_entropy(model(images), labels, reduction="sum").backward()
            model.zero_grad(set_to_none=True)

        def scoring(norms: GradientNorms = norms, images: Tensor = images, labels: Tensor = labels) -> None:
            norms(images, labels)

        yield {"model": name, "batch": options.batch, **_ratio(bare, scoring, options.seconds)}


def last_layer(options: argparse.Namespace) -> Iterator[Row]:
    """`last_layer_gradient_norm` with its tap against the forward pass alone."""
    for name, model in _models().items():
        images, labels = _batch(options.batch)

        @torch.inference_mode()
        def bare(model: nn.Module = model, images: Tensor = images) -> None:
            model(images)

        @torch.inference_mode()
        def scoring(model: nn.Module = model, images: Tensor = images, labels: Tensor = labels) -> None:
            penultimate = Penultimate(model)
            last_layer_gradient_norm(model(images), penultimate.taken(), labels)
            penultimate.close()

        yield {"model": name, "batch": options.batch, **_ratio(bare, scoring, options.seconds)}


def record_pass(options: argparse.Namespace) -> Iterator[Row]:
    """A `PlainImages` recorder's epoch over 10,000 images against the forward passes alone."""
    accelerator = _accelerator()
    split, _ = random_split(32, accelerator.device)
    student = build_student("cifar_resnet20", STEP_CLASSES, channels=3, image_size=32, mean=MEAN, std=STD)
    inputs, model = place(student, accelerator.device), student.model.eval()
    here, ids = Place(accelerator.device), split.readable

    @torch.no_grad()
    def predictions() -> Iterator[tuple[Batch, Tensor]]:
        for batch in plain_batches(split, ids, student.spec, here):
            yield batch, model(inputs(batch.images))

    about = About("plain", 40, len(split), "0" * 64, (), len(ids), "cifar_resnet20")
    files = DynamicsFiles(Path(tempfile.mkdtemp()), about)
    recorder = PlainImages(files, split.labels, STEP_CLASSES, ids, accelerator, predict=predictions)
    epochs = itertools.count(1)

    def bare() -> None:
        for _ in predictions():
            pass

    def scoring() -> None:
        epoch = next(epochs)
        assert epoch <= 40, "fewer --seconds: the record is full"
        recorder.epoch(range(epoch, epoch + 1), last=False)

    yield {"model": "cifar_resnet20", "images": len(ids), **_ratio(bare, scoring, options.seconds)}


def record_training(options: argparse.Namespace) -> Iterator[Row]:
    """An epoch of steps with a `TrainingViews` recorder against the same without."""
    accelerator = _accelerator()
    split, subset = random_split(32, accelerator.device)
    config, steps = step_config(options.batch), len(subset.ids) // options.batch + 1
    about = About("training", 200, len(split), "0" * 64, (), len(subset.ids), "cifar_resnet20")
    files = DynamicsFiles(Path(tempfile.mkdtemp()), about)
    recorder = TrainingViews(
        files, split.labels, STEP_CLASSES, subset.ids, accelerator, epoch_steps=len(subset.ids) / options.batch
    )
    sides: list[Callable[[], None]] = []
    observers_of_sides: tuple[list[Observer], list[Observer]] = ([], [recorder])
    for observers in observers_of_sides:
        torch.manual_seed(0)
        student = build_student("cifar_resnet20", STEP_CLASSES, channels=3, image_size=32, mean=MEAN, std=STD)
        reader = reader_of(split, subset, accelerator.device)
        step = steps_of(student, reader, subset, config, None, accelerator, observers=observers)
        sides.append(partial(_repeated, step, steps))
    measured = _ratio(sides[0], sides[1], options.seconds)
    yield {"model": "cifar_resnet20", "batch": options.batch, "steps": steps, **measured}


def _repeated(step: Callable[[], None], times: int) -> None:
    for _ in range(times):
        step()


def _accelerator() -> Accelerator:
    AcceleratorState._reset_state()
    return make_accelerator("no", [], tempfile.mkdtemp())


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "gradient_norms": gradient_norms,
    "last_layer": last_layer,
    "record_pass": record_pass,
    "record_training": record_training,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--seconds", type=float, default=20, help="of measuring, for each line")
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--batch", type=int, default=1024 if torch.cuda.is_available() else 64)
    return parser.parse_args()


def _ratio(bare: Callable[[], None], scoring: Callable[[], None], seconds: float) -> Row:
    """Both sides in turns until the time is up, so that what else the machine does falls on both alike."""
    sides = {"bare": bare, "scoring": scoring}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # warm up
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["bare"]) < 3:
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - started)
    return {
        "ratio": round(statistics.median(b / s for b, s in zip(taken["bare"], taken["scoring"], strict=True)), 3),
        **{f"{name}_seconds": round(statistics.median(times), 4) for name, times in taken.items()},
        "rounds": len(taken["bare"]),
    }


def _models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    resnet = timm.create_model("resnet18", num_classes=CLASSES)
    resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # the CIFAR form: no stride and no pooling in the stem
    resnet.maxpool = nn.Identity()
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=CLASSES)
    return {name: m.to(_device()).eval() for name, m in (("cifar_resnet18", resnet), ("vit_tiny_patch4_32", vit))}


def _batch(size: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(size, 3, 32, 32, device=_device())
    return images, torch.randint(CLASSES, (size,), device=_device())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
