"""Distillation epochs beside those of others, interleaved in one process: same models, data, batch and precision.

    python benchmarks/peers.py                                 # bf16 where the processor has it, timm
    python benchmarks/peers.py --precision no                  # float32, and torchdistill if it is installed
    python benchmarks/peers.py --compile                       # compiled against compiled

kdprune takes its views from a decoded store, with the teacher at every step (online) and with cached targets. timm
takes its own distillation task, and its own loader with the defaults of its train.py (random resized crop and flip;
colour jitter is off, as it is here) over images that are decoded already, as its CIFAR-10 is. torchdistill takes its
DistillationBox with its KDLoss, and a DataLoader over the same transforms by torchvision, as its examples do. A turn is
one epoch of --steps batches, so that nobody's workers read ahead while another one computes.

Prints a line of JSON for each pair of models:

    images_per_second           of each side, from the median of its turns
    online_over, cached_over    medians of the turns' ratios: above 1, kdprune is faster
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from accelerate.state import AcceleratorState
from PIL import Image
from step import ALPHA, MEAN, STD, TEMPERATURE, _interleaved
from targets import CLASSES, Bench, Pair
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.task.distillation import LogitDistillationTask
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler

from kdprune.runs.accelerator import DTYPES, device_name, make_accelerator
from kdprune.teachers.targets import OnlineTargets

Turn = Callable[[], None]
LOGITS = {"path": ".", "io": "output"}
PAIRS = ("cifar_resnet20:cifar_resnet56", "resnet18:resnet34")


def main() -> None:
    options = _options()
    logging.disable(logging.INFO)  # torchdistill prints its configuration
    for names in options.pairs:
        AcceleratorState._reset_state()
        accelerator = make_accelerator(options.precision, [], tempfile.mkdtemp())
        student, _, teacher = names.partition(":")
        pair = Pair(student, teacher, options.image_size, options.batch, options.steps)
        bench = Bench(pair, accelerator, "rrc+flip", options.compile)
        sides = _sides(bench, options)
        seconds = _interleaved(sides, options.rounds, 1, accelerator.device)
        print(json.dumps({**_about(pair, accelerator, options), **_compared(seconds, pair)}), flush=True)


def _options() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="STUDENT:TEACHER")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1024 if gpu else 128)
    parser.add_argument("--steps", type=int, default=50 if gpu else 20, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side; the median counts")
    parser.add_argument("--workers", type=int, default=8 if gpu else 2, help="that read for the others")
    parser.add_argument("--precision", default="auto", choices=["auto", "no", "bf16"])
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def _about(pair: Pair, accelerator: Any, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": "peers", "hardware": device_name(accelerator.device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "timm": version("timm"), "precision": accelerator.mixed_precision,
        "compiled": options.compile, "student": pair.student, "teacher": pair.teacher, "image_size": pair.image_size,
        "batch": pair.batch, "workers": options.workers,
    }  # fmt: skip


def _compared(seconds: dict[str, list[float]], pair: Pair) -> dict[str, Any]:
    images = pair.batch * pair.steps
    ours = ("online", "cached")
    found: dict[str, Any] = {
        "images_per_second": {name: round(images / statistics.median(times)) for name, times in seconds.items()}
    }
    for own in ours:
        found[f"{own}_over"] = {
            peer: round(statistics.median(b / a for a, b in zip(seconds[own], times, strict=True)), 2)
            for peer, times in seconds.items()
            if peer not in ours
        }
    return found


def _sides(bench: Bench, options: argparse.Namespace) -> dict[str, Turn]:
    def epoch(step: Turn) -> Turn:
        def run() -> None:
            for _ in range(bench.pair.steps):
                step()

        return run

    sides = {
        "online": epoch(bench.trainer(OnlineTargets([bench.teacher], TEMPERATURE))),
        "cached": epoch(bench.trainer(bench.cached())),
        "timm": _timm(bench, options),
    }
    if bench.accelerator.mixed_precision == "no" and importlib.util.find_spec("torchdistill") is not None:
        sides["torchdistill"] = _torchdistill(bench, options)
    return sides


class _Images(Dataset):
    """The images of the bench, as torchvision gives those of CIFAR-10, as many as a turn takes."""

    def __init__(self, bench: Bench) -> None:
        images, count = bench.reader.split.images, bench.pair.batch * bench.pair.steps
        assert images is not None
        self.pixels_NHWC = images[:count].cpu().permute(0, 2, 3, 1).contiguous().numpy()
        if len(self.pixels_NHWC) < count:
            raise ValueError(f"--steps: {bench.pair.steps} given, allowed is {len(images) // bench.pair.batch} or less")
        self.labels = torch.randint(CLASSES, (count,)).tolist()
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image = Image.fromarray(self.pixels_NHWC[i])
        return image if self.transform is None else self.transform(image), self.labels[i]


def _timm(bench: Bench, options: argparse.Namespace) -> Turn:
    """The inner loop of timm's train.py --kd-model … --amp --channels-last."""
    device, dtype = bench.accelerator.device, DTYPES[bench.accelerator.mixed_precision]
    images: Any = _Images(bench)
    loader = create_loader(
        images, (3, bench.pair.image_size, bench.pair.image_size), bench.pair.batch, is_training=True,
        color_jitter=0.0, interpolation="random", mean=MEAN, std=STD, num_workers=options.workers, device=device,
    )  # fmt: skip
    student, teacher = (
        bench.model(name).to(memory_format=torch.channels_last) for name in (bench.pair.student, bench.pair.teacher)
    )
    task = LogitDistillationTask(
        student, teacher.requires_grad_(False), nn.CrossEntropyLoss(), task_loss_weight=1 - ALPHA,
        temperature=TEMPERATURE, device=device, verbose=False,
    )  # fmt: skip
    if options.compile:
        task.compile()
    optimizer = create_optimizer_v2(student, "sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)
    autocast = {"device_type": device.type, "dtype": dtype, "enabled": dtype != torch.float32}

    def run() -> None:
        task.train()
        for x, y in loader:
            with torch.autocast(**autocast):
                loss: Tensor = task(x.contiguous(memory_format=torch.channels_last), y)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def _torchdistill(bench: Bench, options: argparse.Namespace) -> Turn:
    """The inner loop of torchdistill's image_classification.py."""
    import torchdistill.losses  # noqa: F401  registers them
    from torchdistill.core.distillation import DistillationBox
    from torchvision import transforms

    images = _Images(bench)
    images.transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(bench.pair.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    logits = {f"{who}_module_{key}": value for who in ("student", "teacher") for key, value in LOGITS.items()}
    loss = {"alpha": 1 - ALPHA, "temperature": TEMPERATURE, "reduction": "batchmean"}  # alpha is of the labels there
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "images",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {
                "batch_size": bench.pair.batch, "num_workers": options.workers, "drop_last": True,
                "persistent_workers": True,
            },
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False, "wrapper": None},
        "student": {"forward_proc": "forward_batch_only", "wrapper": None},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": {**logits, **loss}}, "weight": 1.0}}
            },
        },
    }  # fmt: skip
    device = bench.accelerator.device
    student, teacher = bench.model(bench.pair.student), bench.model(bench.pair.teacher)
    if options.compile:
        student.compile()
        teacher.compile()
    box = DistillationBox(teacher, student, {"images": images}, config, device, None, False, 1)

    def run() -> None:
        student.train()
        teacher.eval()
        for x, y, more in box.train_data_loader:
            found = box.forward_process(x.to(device), y.to(device), more)
            box.post_forward_process(found)
            if not torch.isfinite(found):
                raise FloatingPointError("torchdistill's loss is not finite")

    return run


if __name__ == "__main__":
    main()
