"""What a sweep will take: time, sample passes and disk, from a few real steps of each kind of training in it.

Not in it: opening data, writing files, and that runs which share a machine slow each other down.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch

from kdprune.config import Config, DistillConfig, TeacherConfig, TeacherTrainConfig, TrainConfig
from kdprune.data.dataset import open_data
from kdprune.pipeline.needs import Need
from kdprune.pipeline.recipes import without_teacher
from kdprune.pipeline.train import run
from kdprune.runs.reading import WEIGHTS
from kdprune.sweep.graph import Graph
from kdprune.sweep.plan import Plan
from kdprune.teachers.entries import make_entries
from kdprune.training.observers import Observer
from kdprune.training.schedule import make_budget

STEPS = 12  # of which the second half is measured
FORWARD = 1 / 3  # of a training step, of which the backward pass takes about two thirds

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Estimate:
    """What making something takes.

    Attributes:
        passes: samples that go forward or backward through a network.
        bytes: that stay on the disk.
    """

    seconds: float = 0.0
    passes: int = 0
    bytes: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.seconds + other.seconds, self.passes + other.passes, self.bytes + other.bytes)


@dataclass
class Measured:
    """Steps that were taken.

    Attributes:
        step: seconds of one, without its teachers.
        teachers: seconds of their part of a step.
        weights: bytes of the student's weights.
        beside: seconds of the run that were not of its steps.
    """

    step: float
    teachers: float
    weights: int
    beside: float


@dataclass
class Estimator:
    """Estimates nodes of a plan; measures each kind of training once.

    Args:
        threads: that a run will have.
    """

    threads: int
    _measured: dict[str, Measured] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def of_plan(self, plan: Plan) -> dict[str, Estimate]:
        """Of every node by its id."""
        filled = {id for id, node in plan.graph.nodes.items() if node.need is not None and node.need.kind == "targets"}
        found = {}
        for id, node in plan.graph.nodes.items():
            if node.need is None:
                found[id] = self.of_training(plan.runs[id].config, cached=bool(node.needs & filled))
            else:
                found[id] = self.of_need(node.need)
        return found

    def of_need(self, need: Need) -> Estimate:
        """Of something that runs share."""
        if need.kind == "training":
            return self.of_training(need.config)
        kept, total, classes, _ = self._size(need.config)
        measured = self._measure(need.config)
        if need.kind == "observation":  # one pass; what is trained for it is a part of its own
            return Estimate(FORWARD * measured.step / need.config.train.batch_size * total, total)
        epochs = make_budget(need.config.train, kept, total).epochs
        views = min(need.config.teacher.views or epochs, epochs)
        images, teachers = views * kept, len(need.config.teacher.models)
        entry = 2 * make_entries(classes, need.config.teacher.top_k).words + 4
        seconds = measured.teachers / need.config.train.batch_size * images
        return Estimate(seconds, images * teachers, images * teachers * entry)

    def of_training(self, config: Config, cached: bool = False) -> Estimate:
        """Of a run.

        Args:
            cached: whether its teachers' targets are there before it begins.
        """
        kept, total, _, held_out = self._size(config)
        budget, measured = make_budget(config.train, kept, total), self._measure(config)
        images, teachers = budget.steps * config.train.batch_size, 0 if cached else len(config.teacher.models)
        evaluated = held_out * math.ceil(budget.epochs / config.train.eval_every)
        step = measured.step + (0 if cached else measured.teachers)
        seconds = budget.steps * step + evaluated * FORWARD * measured.step / config.train.batch_size
        return Estimate(seconds, (2 + teachers) * images + evaluated, measured.weights)

    def beside(self, config: Config) -> float:
        """Seconds that a run takes beside its steps; of the first that is measured, with what is prepared once."""
        return self._measure(config).beside

    def _size(self, config: Config) -> tuple[int, int, int, int]:
        """Kept and all samples, classes, held-out samples."""
        name = json.dumps(asdict(config.data), sort_keys=True)
        if name not in self._sizes:
            data = open_data(config.data, config.seed_of("subset"))
            self._sizes[name] = len(data.train), data.num_classes, 0 if data.test is None else len(data.test)
        total, classes, held_out = self._sizes[name]
        most = total - round(config.data.val_fraction * total)
        return max(1, min(most, round(config.subset.keep_fraction * total))), total, classes, held_out

    def _measure(self, config: Config) -> Measured:
        plain = self._steps(without_teacher(config))
        both = self._steps(config) if config.teacher.models else plain
        return Measured(plain.step, max(0.0, both.step - plain.step), plain.weights, plain.beside)

    def _steps(self, config: Config) -> Measured:
        """A few steps of a run with these settings, in a folder that is removed."""
        short = shortened(config)
        kind = json.dumps(asdict(short), sort_keys=True)
        if kind not in self._measured:
            guided = f" from {'+'.join(short.teacher.models)}" if short.teacher.models else ""
            log.info("measuring %s%s", short.student.model, guided)
            clock, level, threads = _Clock(), log.level, torch.get_num_threads()
            torch.set_num_threads(self.threads)
            log.setLevel(logging.ERROR)
            try:
                with tempfile.TemporaryDirectory() as folder:
                    short.output = folder
                    begun = time.perf_counter()
                    path = run(short, observers=[clock])[0].path
                    beside = max(0.0, time.perf_counter() - begun - STEPS * clock.seconds)
                    self._measured[kind] = Measured(clock.seconds, 0.0, (path / WEIGHTS).stat().st_size, beside)
            finally:
                log.setLevel(level)
                torch.set_num_threads(threads)
        return self._measured[kind]


def shortened(config: Config) -> Config:
    """A few steps that take as long as the run's; equal for runs whose steps take equally long."""
    train, teacher = config.train, config.teacher
    short = Config(
        output="",
        data=replace(config.data, val_fraction=0.0),
        student=config.student,
        train=TrainConfig(
            steps=STEPS, batch_size=train.batch_size, grad_accum=train.grad_accum, opt=train.opt, lr=1e-3,
            precision=train.precision, compile=train.compile, ema=train.ema, clip_grad=train.clip_grad,
            eval_every=10**9,
        ),
    )  # fmt: skip
    if teacher.models:
        short.teacher = TeacherConfig(
            models=teacher.models, checkpoints=teacher.checkpoints, pretrained=teacher.pretrained,
            train=TeacherTrainConfig(steps=1), by_correctness=teacher.by_correctness, engine=teacher.engine,
        )  # fmt: skip
        short.distill = DistillConfig(loss=config.distill.loss, layers=config.distill.layers, alpha=0.5)
    return deepcopy(short)


def duration(graph: Graph, estimates: Mapping[str, Estimate], jobs: int) -> float:
    """Seconds until all is made with so many at a time, in the order in which a sweep begins them."""
    now, done, running = 0.0, set[str](), list[tuple[float, str]]()
    while True:
        begun = done | {id for _, id in running}
        for node in graph.ready(done, done, begun)[: jobs - len(running)]:
            heapq.heappush(running, (now + estimates[node.id].seconds, node.id))
        if not running:
            return now
        now, id = heapq.heappop(running)
        done.add(id)


class _Clock(Observer):
    """The time of a step: the shortest of the second half, after memory and kernels are warm.

    What else the machine does makes steps longer, and a few of them many times longer.
    """

    def __init__(self) -> None:
        self._times: list[float] = []

    def step(self, step: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # this is a measurement, and no training
        self._times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        half = self._times[len(self._times) // 2 - 1 :]
        return min(after - before for before, after in pairwise(half))


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder, which may not be there yet, will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
