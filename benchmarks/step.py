"""The trainer's step against a bare loop that does the same arithmetic, interleaved in one process.

    python benchmarks/step.py                      # ResNet-20 from ResNet-56 at 32 px, batch 128 (1024 on a GPU)

The bare loop has its tensors on the device already: normalised inputs, labels, models, optimizer, and nothing else. The
trainer gathers, augments and normalises its batch, measures, schedules, looks for a stop. Prints one line of JSON:

    ratio             bare seconds / trainer seconds, teacher as it is on both sides (to reach: 0.95)
    ratio_frozen      the same with the trainer's frozen teacher
    bf16_over_fp32    trainer's speed in bf16 / in float32

On a GPU also:

    ratio_free        seconds with deterministic convolutions / with those that cuDNN finds fastest (1.03 and more would
                      be a price to choose by); both with the frozen teacher
    peak_gib          most memory, of all sides together
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from kdprune.config import Config
from kdprune.data.dataset import no_ids
from kdprune.data.place import Place
from kdprune.data.reader import Reader
from kdprune.data.recipe import parse as parse_recipe
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.data.stream import Stream
from kdprune.data.subset import Subset
from kdprune.data.view_settings import ViewSettings
from kdprune.losses.common.sum import build_loss
from kdprune.models.build import build_student
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.student import place
from kdprune.runs.accelerator import DTYPES, device_name, make_accelerator
from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select
from kdprune.teachers.targets import OnlineTargets
from kdprune.teachers.teacher import make_teacher
from kdprune.training.checkpoint import Checkpoints
from kdprune.training.observers import Observer
from kdprune.training.schedule import make_budget
from kdprune.training.sparse import Kept, Sparse
from kdprune.training.step import Distillation
from kdprune.training.task import Task
from kdprune.training.trainer import Trainer

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
TEMPERATURE, ALPHA, CLASSES = 4.0, 0.9, 100


def main() -> None:
    options = _options()
    rows = {}
    for precision in options.precisions:
        AcceleratorState._reset_state()
        accelerator = make_accelerator(precision, [], tempfile.mkdtemp())
        rows[precision] = _compare(accelerator, options)
    result: dict[str, Any] = {
        "benchmark": "step", "hardware": device_name(accelerator.device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "student": options.student, "teacher": options.teacher, "batch": options.batch,
        "image_size": options.image_size, **rows,
    }  # fmt: skip
    if {"no", "bf16"} <= set(rows):
        speeds = [rows[name]["images_per_second"]["trainer"] for name in ("bf16", "no")]
        result["bf16_over_fp32"] = round(speeds[0] / speeds[1], 3)
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="cifar_resnet20")
    parser.add_argument("--teacher", default="cifar_resnet56")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1024 if torch.cuda.is_available() else 128)
    parser.add_argument("--rounds", type=int, default=12, help="of --steps steps for each side; the median counts")
    parser.add_argument("--steps", type=int, default=50 if torch.cuda.is_available() else 3)
    parser.add_argument("--precisions", nargs="+", default=["no", "bf16"])
    return parser.parse_args()


def _compare(accelerator: Accelerator, options: argparse.Namespace) -> dict[str, Any]:
    sides = {
        "bare": _bare(accelerator, options),
        "trainer": _trainer(accelerator, options, frozen=False),
        "trainer_frozen": _trainer(accelerator, options, frozen=True),
    }
    on_gpu = accelerator.device.type == "cuda"
    if on_gpu:
        sides["trainer_free"] = _free(sides["trainer_frozen"])
    seconds = _interleaved(sides, options.rounds, options.steps, accelerator.device)
    bare = seconds["bare"]
    of_gpu: dict[str, Any] = {}
    if on_gpu:
        pairs = zip(seconds["trainer_frozen"], seconds["trainer_free"], strict=True)
        of_gpu["ratio_free"] = round(statistics.median(frozen / free for frozen, free in pairs), 3)
        of_gpu["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return {
        "ratio": round(statistics.median(b / t for b, t in zip(bare, seconds["trainer"], strict=True)), 3),
        "ratio_frozen": round(
            statistics.median(b / t for b, t in zip(bare, seconds["trainer_frozen"], strict=True)), 3
        ),
        "images_per_second": {
            name: round(options.batch * options.steps / statistics.median(times)) for name, times in seconds.items()
        },
        **of_gpu,
    }


def _free(step: Callable[[], None]) -> Callable[[], None]:
    """The same step with whatever convolutions cuDNN finds fastest."""
    flags = torch.backends.cudnn

    def run() -> None:
        before = flags.deterministic, flags.benchmark
        flags.deterministic, flags.benchmark = False, True
        try:
            step()
        finally:
            flags.deterministic, flags.benchmark = before

    return run


def _interleaved(
    sides: dict[str, Callable[[], None]], rounds: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of `steps` steps, in turns, so that what else the machine does falls on all sides alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, step in sides.items():
            started = time.perf_counter()
            for _ in range(steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _bare(accelerator: Accelerator, options: argparse.Namespace) -> Callable[[], None]:
    device, dtype = accelerator.device, DTYPES[accelerator.mixed_precision]
    student, teacher = (_model(name, options).to(device) for name in _names(options))
    for model in (student, teacher):
        model.to(memory_format=torch.channels_last)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    shape = (options.batch, 3, options.image_size, options.image_size)
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (options.batch,), device=device)
    autocast = {"device_type": device.type, "dtype": dtype, "enabled": dtype != torch.float32}

    def step() -> None:
        with torch.autocast(**autocast):
            logits = student(x)
            with torch.no_grad():
                soft = teacher(x)
        log_p, log_q = (F.log_softmax(z.float() / TEMPERATURE, 1) for z in (soft, logits))
        kd = TEMPERATURE**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        loss = (1 - ALPHA) * F.cross_entropy(logits.float(), y) + ALPHA * kd
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    student.train()
    return step


def _trainer(accelerator: Accelerator, options: argparse.Namespace, frozen: bool) -> Callable[[], None]:
    config = step_config(options.batch)
    split, subset = random_split(options.image_size, accelerator.device)
    student, teacher = (_built(name, options) for name in _names(options))
    reader = reader_of(split, subset, accelerator.device)
    images = split.images
    assert images is not None
    dtype = DTYPES[accelerator.mixed_precision]
    frozen_teacher = make_teacher(teacher, "random", images[:64], accelerator.device, dtype, frozen, False)
    targets = OnlineTargets([frozen_teacher], TEMPERATURE)
    distillation = Distillation(build_loss("kd", TEMPERATURE), targets, lambda _: ALPHA)
    return steps_of(student, reader, subset, config, distillation, accelerator)


def step_config(batch: int) -> Config:
    """A training without end."""
    config = Config()
    config.train.batch_size, config.train.lr, config.train.sched, config.train.steps = batch, 0.01, "cosine", 10**6
    return config


def random_split(side: int, device: torch.device) -> tuple[Split, Subset]:
    """10,000 images of noise on the device, and a half of them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10_000, 3, side, side), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, len(pixels))
    source = from_indexable(_Arrays(pixels, labels), "random", "train", [str(i) for i in range(CLASSES)])
    split = Split(source, 3, torch.from_numpy(pixels).to(device), no_ids())
    return split, select(Samples(source.labels, "0" * 64), 0.5)


def reader_of(split: Split, subset: Subset, device: torch.device) -> Reader:
    """Views by crop and flip."""
    assert split.images is not None
    settings = ViewSettings(parse_recipe("crop+flip"), split.images.shape[-1], 0, (127, 127, 127), True)
    return Reader(split, settings, subset.ids, CLASSES, Place(device))


def steps_of(
    student: BuiltModel, reader: Reader, subset: Subset, config: Config, distillation: Distillation | None,
    accelerator: Accelerator, views: int | None = None, observers: Sequence[Observer] = (),
    kept: Kept | None = None,
) -> Callable[[], None]:  # fmt: skip
    """One step of the trainer a call.

    Args:
        kept: weights of a sparse student.
    """
    inputs = place(student, accelerator.device)
    if distillation is not None:
        distillation.loss.to(accelerator.device)
    task = Task(
        label="step",
        student=student,
        inputs=inputs,
        reader=reader,
        order=Stream(subset.ids, config.train.batch_size, 0),
        budget=make_budget(config.train, len(subset.ids), subset.total),
        settings=config.train,
        seed=0,
        checkpoints=Checkpoints(Path(tempfile.mkdtemp()), {}, 1),
        distillation=distillation,
        views=views,
        observers=observers,
        sparse=None if kept is None else Sparse(student.model, kept),
    )
    steps = Trainer(task, accelerator).steps()

    def step() -> None:
        next(steps)

    return step


class _Arrays:
    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.targets = pixels, labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return self.pixels[i].transpose(1, 2, 0), self.targets[i]


def _names(options: argparse.Namespace) -> tuple[str, str]:
    return options.student, options.teacher


def _built(name: str, options: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    return build_student(name, CLASSES, channels=3, image_size=options.image_size, mean=MEAN, std=STD)


def _model(name: str, options: argparse.Namespace) -> torch.nn.Module:
    return _built(name, options).model


if __name__ == "__main__":
    main()
