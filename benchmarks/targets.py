"""What cached targets cost: training steps on them against steps without a teacher and with one, interleaved.

    python benchmarks/targets.py        # ResNet-20 from ResNet-56 at 32 px, and ResNet-18 from ResNet-50 at 128 px
    python benchmarks/targets.py --models resnet18 resnet50 --image_size 128 --batch 32 --steps 1

Prints one line of JSON, for each pair of models:

    cached_over_none     seconds of a step on cached targets / without a teacher (to reach: at most 1.05)
    cached_over_online   the same / with the frozen teacher at every step
    fill_over_forward    images/s that fill a cache, from the decoded store to the disk / of the frozen teacher's bare
                         forward pass, whose input lies ready (to reach: at least 0.9)
    processor            the three of processor seconds, which others on the machine disturb less (they hide waiting,
                         and mean something with OMP_NUM_THREADS=1 on a CPU only)
    bytes                of an image and view, of all logits and of the ten largest
    teacher_over_autocast  speed of the teacher's routes over autocast (see frozen_teacher.py)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from frozen_teacher import engines_of, images_per_second
from step import MEAN, STD, TEMPERATURE, _Arrays, steps_of

from kdprune.config import Config
from kdprune.data.dataset import no_ids
from kdprune.data.place import Place
from kdprune.data.reader import Reader, Request
from kdprune.data.recipe import parse as parse_recipe
from kdprune.data.sources import from_indexable
from kdprune.data.split import Split
from kdprune.data.view_settings import ViewSettings
from kdprune.losses.common.sum import build_loss
from kdprune.models.build import build_student
from kdprune.runs.accelerator import DTYPES, device_name, make_accelerator
from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.entries import make_entries
from kdprune.teachers.key import targets_key
from kdprune.teachers.targets import CachedTargets, OnlineTargets
from kdprune.teachers.teacher import Teacher, make_teacher
from kdprune.training.step import Distillation

CLASSES, VIEWS = 100, 2
WALL, PROCESSOR = 0, 1


@dataclass
class Pair:
    """A student, a teacher and how they are run."""

    student: str
    teacher: str
    image_size: int
    batch: int
    steps: int


PAIRS = [Pair("cifar_resnet20", "cifar_resnet56", 32, 128, 2), Pair("resnet18", "resnet50", 128, 32, 1)]


def main() -> None:
    options = _options()
    load = os.getloadavg()
    AcceleratorState._reset_state()
    accelerator = make_accelerator(options.precision, [], tempfile.mkdtemp())
    rows = [_compare(pair, accelerator, options) for pair in _pairs(options)]
    about = {
        "benchmark": "targets", "hardware": device_name(accelerator.device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "precision": accelerator.mixed_precision,
        "load_before_and_after": [round(average[0], 1) for average in (load, os.getloadavg())],
    }  # fmt: skip
    print(json.dumps({**about, "rows": rows}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs=2, metavar=("STUDENT", "TEACHER"), help="one pair (default: both)")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=None, help="default: 128 and 32; 1024 and 256 on a GPU")
    parser.add_argument("--steps", type=int, default=None, help="of a round (default: 2 and 1; 50 on a GPU)")
    parser.add_argument("--rounds", type=int, default=10, help="of each side, in turns; the median counts")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="measure the teacher's compiled route, too")
    return parser.parse_args()


def _pairs(options: argparse.Namespace) -> list[Pair]:
    student, teacher = options.models or ("", "")
    pairs = [Pair(student, teacher, options.image_size, 128, 2)] if student else PAIRS
    for pair in pairs:
        if torch.cuda.is_available():
            pair.batch, pair.steps = 8 * pair.batch, 50
        pair.batch, pair.steps = options.batch or pair.batch, options.steps or pair.steps
    return pairs


def _compare(pair: Pair, accelerator: Accelerator, options: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(pair, accelerator)
    forward, images = bench.forward()
    cached = bench.cached()
    sides = {
        "none": bench.trainer(None),
        "cached": bench.trainer(cached),
        "online": bench.trainer(OnlineTargets([bench.teacher], TEMPERATURE)),
        "forward": forward,
        "fill": bench.fill(),
    }
    seconds = _interleaved(sides, options.rounds, pair.steps, accelerator.device)
    assert cached.forward_samples == 0
    dtype = DTYPES[accelerator.mixed_precision]
    engines = engines_of(bench.model(pair.teacher), images.float(), dtype, options.compile)
    speeds = images_per_second(engines, images.float(), 2.0)

    def ratios(clock: int) -> dict[str, float]:
        def ratio(above: str, below: str) -> float:
            pairs = zip(seconds[above], seconds[below], strict=True)
            return round(statistics.median(a[clock] / b[clock] for a, b in pairs), 3)

        return {
            "cached_over_none": ratio("cached", "none"),
            "cached_over_online": ratio("cached", "online"),
            "fill_over_forward": ratio("forward", "fill"),
        }

    return {
        "student": pair.student, "teacher": pair.teacher, "image_size": pair.image_size, "batch": pair.batch,
        **ratios(WALL),
        "processor": ratios(PROCESSOR),
        "images_per_second": {
            name: round(pair.batch * pair.steps / statistics.median(spent[WALL] for spent in times))
            for name, times in seconds.items()
        },
        "bytes": {
            name: round(bench.cache(k).bytes_per_view / bench.subset.total, 2)
            for name, k in (("all", None), ("top_10", 10))
        },
        "teacher_route": bench.teacher.engine.route,
        "teacher_over_autocast": {name: round(speed / speeds["autocast"], 3) for name, speed in speeds.items()},
    }  # fmt: skip


def _interleaved(
    sides: dict[str, Callable[[], None]], rounds: int, steps: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of `steps` steps, in turns, so that what else the machine does falls on all alike."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, step in sides.items():
            started = time.perf_counter(), time.process_time()
            for _ in range(steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                seconds[name].append((time.perf_counter() - started[WALL], time.process_time() - started[PROCESSOR]))
    return seconds


class Bench:
    """Random images, a student and a teacher with random weights."""

    def __init__(self, pair: Pair, accelerator: Accelerator, views: str = "crop+flip", compiled: bool = False) -> None:
        self.pair, self.accelerator, self.compiled = pair, accelerator, compiled
        side, device = pair.image_size, accelerator.device
        rng = np.random.default_rng(0)
        count = 10_000 if side <= 64 else 2_000
        pixels = rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
        labels = rng.integers(0, CLASSES, count)
        source = from_indexable(_Arrays(pixels, labels), "random", "train", [str(i) for i in range(CLASSES)])
        images = torch.from_numpy(pixels).to(device)
        split = Split(source, 3, images, no_ids())
        self.subset = select(Samples(source.labels, "0" * 64), 0.5)
        settings = ViewSettings(parse_recipe(views), side, 0, (127, 127, 127), True)
        self.reader = Reader(split, settings, self.subset.ids, CLASSES, Place(device))
        dtype = DTYPES[accelerator.mixed_precision]
        self.teacher: Teacher = make_teacher(
            self.built(pair.teacher), "random", images[:64], device, dtype, True, compiled
        )

    def built(self, name: str) -> Any:
        torch.manual_seed(0)
        size = self.pair.image_size
        return build_student(name, CLASSES, channels=3, image_size=size, img_size=size, mean=MEAN, std=STD)

    def model(self, name: str) -> torch.nn.Module:
        return self.built(name).model.to(self.accelerator.device).eval()

    def trainer(self, targets: OnlineTargets | None) -> Callable[[], None]:
        """One training step a call."""
        config = Config()
        config.train.batch_size, config.train.lr, config.train.steps = self.pair.batch, 0.01, 10**6
        config.train.compile = self.compiled
        distillation = None
        if targets is not None:
            distillation = Distillation(build_loss("kd", TEMPERATURE), targets, lambda _: 0.9)
        student = self.built(self.pair.student)
        return steps_of(student, self.reader, self.subset, config, distillation, self.accelerator, VIEWS)

    def cache(self, top_k: int | None) -> TargetCache:
        entries = make_entries(CLASSES, top_k)
        key = targets_key(self.teacher, "0" * 64, self.subset.total, self.reader.settings, self.subset.hash, entries)
        return TargetCache(Path(tempfile.mkdtemp()), key, self.subset.total, entries)

    def cached(self) -> CachedTargets:
        """Every entry is there; what it says does not matter here."""
        cache = self.cache(None)
        ids = self.subset.ids
        for view in range(VIEWS):
            logits = torch.randn(len(ids), CLASSES, generator=torch.Generator().manual_seed(view))
            cache.write(view, ids, cache.entries.encode(logits).numpy())
        return CachedTargets([self.teacher], [cache], TEMPERATURE)

    def forward(self) -> tuple[Callable[[], None], torch.Tensor]:
        """The teacher alone on one batch, a batch a call; and the batch."""
        ids = torch.from_numpy(self.subset.ids[: self.pair.batch])
        batch = next(iter(self.reader.read([(ids, torch.zeros_like(ids))])))
        images = self.teacher.inputs(batch.images)

        def run() -> None:
            self.teacher.engine(images)

        return run, images

    def fill(self) -> Callable[[], None]:
        """One batch of views, from the store to the cache, a call, as `kdprune cache` does it."""
        targets = CachedTargets([self.teacher], [self.cache(None)], TEMPERATURE)
        ids, size = torch.from_numpy(self.subset.ids), self.pair.batch

        def requests() -> Iterator[Request]:
            for view in range(10**6):
                for start in range(0, len(ids) - size + 1, size):
                    part = ids[start : start + size]
                    yield part, torch.full_like(part, view)

        batches = self.reader.read(requests())

        def run() -> None:
            targets.logits(next(batches))

        return run


if __name__ == "__main__":
    main()
