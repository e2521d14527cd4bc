"""What a training is put together from: data, subset, student, reader, teachers that have weights, their targets."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from kdprune import alpha as alpha_policies
from kdprune.checks import EMA, LEARNED
from kdprune.config import Config
from kdprune.data import recipe
from kdprune.data.dataset import Data, open_data
from kdprune.data.reader import Reader, ViewSettings
from kdprune.data.stream import total_steps
from kdprune.data.subset import Subset, class_ids, load_subset
from kdprune.models.build import (
    Built,
    build_student,
    build_teacher,
    load_model,
    resolve_teacher,
)
from kdprune.models.features import Features
from kdprune.models.names import is_remote
from kdprune.passes.evaluation import evaluate, held_out
from kdprune.runs.accelerator import DTYPES
from kdprune.selectors.common.select import Samples, select
from kdprune.teachers.cache import CacheKey, TargetCache, in_bytes
from kdprune.teachers.entries import make_entries
from kdprune.teachers.targets import CachedTargets, MeanTargets, OnlineTargets
from kdprune.teachers.teacher import Teacher, make_teacher, warn_if_near_chance, warn_if_smoothed

log = logging.getLogger("kdprune")


class Workbench:
    """Opens, once, what the trainings of one command share; makes what each of them has for itself."""

    def __init__(self, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self._data: Data | None = None
        self._images: torch.Tensor | None = None

    @property
    def data(self) -> Data:
        """The data set, opened when first needed: a finished run does not need it."""
        if self._data is None:
            main = self.accelerator.is_main_process
            with self.accelerator.main_process_first():
                self._data = open_data(self.config.data, progress=main)
            if not self._data.num_classes:
                self._data.train.classes = classes_of_teacher(self.config)
            self._images = self._on_device(self._data)
            n, k = len(self._data.train), self._data.num_classes
            log.info(
                "%s: %d training images of %d classes, %s, %s",
                self.config.data.dataset, n, k,
                "no held-out images" if self._data.test is None else f"{len(self._data.test)} held out",
                "decoded by workers" if self._data.train_images is None else "decoded once",
            )  # fmt: skip
        return self._data

    def _on_device(self, data: Data) -> torch.Tensor | None:
        """The decoded images on the accelerator if they take no more than a quarter of its free memory."""
        images, device = data.train_images, self.accelerator.device
        if images is None or device.type != "cuda":
            return images
        free, _ = torch.cuda.mem_get_info(device)
        return images.to(device) if images.numel() <= free / 4 else images

    def check_loss(self, kd: Any, config: Config) -> None:
        """Refuse what a loss cannot do with these teachers, targets and data."""
        if config.distill.layers or not kd.needs_features:  # else the layers are found when both models are there
            kd.check(self.data.num_classes)
        if kd.needs_features and config.teacher.models == [EMA]:
            raise ValueError(f"--distill.loss: {config.distill.loss!r} compares features, which ema does not give")
        if kd.needs_features and len(config.teacher.models) > 1:
            raise ValueError(f"--distill.loss: {config.distill.loss!r} compares features, which needs one teacher")
        if kd.needs_features and config.teacher.targets == "cached":
            raise ValueError(f"--distill.loss: {config.distill.loss!r} compares features, which no cache holds")
        top_k = config.teacher.targets == "cached" and config.teacher.top_k is not None
        if top_k:
            make_entries(self.data.num_classes, config.teacher.top_k)  # refuses more than there are
        kd.check_targets(config.distill.temperature, top_k, len(config.teacher.models) > 1)
        if kd.needs_labels and (self.data.train.labels < 0).any():
            raise ValueError(f"--distill.loss: {config.distill.loss!r} needs labels, and the data set has none")
        if recipe.parse(config.data.augment).mixes and not kd.accepts_mixed_labels:
            raise ValueError(f"--distill.loss: {config.distill.loss!r} cannot use the mixed labels of --data.augment")

    def subset(self, config: Config) -> Subset:
        data, wanted = self.data, config.subset
        if wanted.file:
            return load_subset(wanted.file, data.fingerprint, len(data.train))
        return select(
            Samples(data.train.labels, data.fingerprint, data.classes, data.dropped),
            wanted.keep_fraction,
            wanted.selector,
            balanced=wanted.balanced,
            class_floor=wanted.class_floor,
            without_classes=class_ids(wanted.without_classes, data.classes),  # type: ignore[arg-type]
            seed=config.seed,
        )

    def student(self, config: Config) -> Built:
        torch.manual_seed(config.seed)
        data, student = self.data, config.student
        return build_student(
            student.model, data.num_classes, channels=data.channels,
            image_size=config.data.image_size or data.stored_size, mean=data.mean, std=data.std,
            img_size=config.data.image_size, pretrained=student.pretrained, checkpoint=student.checkpoint,
            classes=data.classes, drop_rate=student.drop_rate,
        )  # fmt: skip

    def reader(self, config: Config, built: Built, subset: Subset) -> Reader:
        settings = view_settings(config, self.data, built.spec.size)
        return Reader(
            self.data.train, settings, self._images, subset.ids, self.data.channels, self.data.num_classes,
            self.accelerator.device, self.data.workers,
        )  # fmt: skip

    def views(self, config: Config, subset: Subset) -> int:
        """How many different views of a sample the run meets."""
        train = config.train
        steps = total_steps(train.epochs, train.steps, train.budget, len(subset.ids), subset.total, train.batch_size)
        epochs = -(-steps * train.batch_size // len(subset.ids))
        return min(config.teacher.views or epochs, epochs)

    def wanted(self, config: Config) -> list[tuple[str, str | None, bool]]:
        """Each teacher's name, its checkpoint, and whether it has weights: pretrained, or of the hub, a run, a file."""
        teacher = config.teacher
        checkpoints: Sequence[str | None] = list(teacher.checkpoints) or [None] * len(teacher.models)
        return [
            (name, file, bool(file) or teacher.pretrained or is_remote(name) or resolve_teacher(name) is not None)
            for name, file in zip(teacher.models, checkpoints, strict=True)
        ]

    def _load(self, config: Config, name: str, checkpoint: str | None) -> Built:
        data = self.data
        return build_teacher(
            name, data.num_classes, channels=data.channels, image_size=config.data.image_size or data.stored_size,
            mean=data.mean, std=data.std, checkpoint=checkpoint,
            pretrained=config.teacher.pretrained or is_remote(name),
            classes=data.classes,
        )  # fmt: skip

    def _freeze(self, config: Config, built: Built, source: str, with_features: bool) -> Teacher:
        accelerator, data = self.accelerator, self.data
        fold = config.teacher.engine == "frozen" and not with_features
        readable = np.setdiff1d(np.arange(len(data.train)), data.dropped)[: 64 * accelerator.num_processes]
        example = next(iter(held_out(data, built.spec, accelerator, of_train=readable)))
        teacher = make_teacher(
            built, source, example.images, accelerator.device, DTYPES[accelerator.mixed_precision], fold,
            config.train.compile, config.train.batch_size // (accelerator.num_processes * config.train.grad_accum),
        )  # fmt: skip
        if data.test is not None:
            result = evaluate(teacher, held_out(data, built.spec, accelerator), data.num_classes, accelerator)
            teacher.test_top1 = result["top1"]
            log.info(
                "teacher %s: top-1 %.2f%% on held-out data (%s)", built.name, 100 * result["top1"], teacher.engine.route
            )
            warn_if_near_chance(built.name, result["top1"], data.num_classes)
        warn_if_smoothed(built.name, built.info.get("smoothing", 0.0), config.distill.temperature)
        return teacher

    def targets(
        self, config: Config, kd: Any, teachers: list[Teacher], subset: Subset, reader: Reader
    ) -> OnlineTargets:
        common: dict[str, Any] = {
            "temperature": config.distill.temperature,
            "weights": config.teacher.weights,
            "temperatures": config.teacher.temperatures,
            "by_correctness": config.teacher.by_correctness,
        }
        if config.teacher.models == [EMA]:
            return MeanTargets(config.distill.temperature)
        if config.teacher.targets == "cached":
            caches = self.open_caches(config, teachers, subset, reader)
            return CachedTargets(teachers, caches, **common)
        features = None
        if kd.needs_features:
            features = Features(teachers[0].engine.network, (layer for _, layer in kd.layers), "teacher")
        return OnlineTargets(teachers, features=features, **common)

    def open_caches(self, config: Config, teachers: list[Teacher], subset: Subset, reader: Reader) -> list[TargetCache]:
        """A cache for each teacher, with its size announced and refused if the disk cannot hold it."""
        caches = []
        for index, teacher in enumerate(teachers):
            entries = make_entries(self.data.num_classes, config.teacher.top_k)
            s = reader.settings
            key = CacheKey(
                teacher.weights_hash, str(teacher.built.spec), self.data.fingerprint, subset.hash,
                str(s), s.seed, entries.about, str(teacher.engine.dtype).removeprefix("torch."),
            )  # fmt: skip
            caches.append(TargetCache(cache_folder(config, teacher, key, index), key, subset.ids, entries))
        views = self.views(config, subset)
        for cache in caches:
            cache.check(views)
        missing = sum(cache.missing_bytes(views) for cache in caches)
        log.info(
            "cached targets: %d views of %d samples, %s in all, %s to be reserved, in %s",
            views, len(subset.ids), in_bytes(views * sum(c.bytes_per_view for c in caches)), in_bytes(missing),
            ", ".join(str(cache.folder) for cache in caches),
        )  # fmt: skip
        caches[0].check_space(missing, views)
        return caches


def cache_folder(config: Config, teacher: Teacher, key: CacheKey, index: int) -> Path:
    """Where a teacher's cached targets are."""
    if config.teacher.cache:
        several = len(config.teacher.models) > 1
        return Path(config.teacher.cache) / f"teacher_{index}" if several else Path(config.teacher.cache)
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:12]
    return Path(config.output) / "targets" / f"{teacher.built.name}-{digest}"


def view_settings(config: Config, data: Data, student_size: int) -> ViewSettings:
    """How views are made: all that cached targets depend on, beside teacher and sample."""
    size = config.data.image_size or data.stored_size or student_size
    fill = tuple(round(255 * m) for m in data.mean)
    return ViewSettings(recipe.parse(config.data.augment), size, config.seed, fill, data.train_images is not None)


def classes_of_teacher(config: Config) -> list[str]:
    """The classes of data that names none, an unlabelled folder without a held-out part: those of a teacher's run."""
    for name in config.teacher.models:
        path = resolve_teacher(name)
        if path is not None:
            built = load_model(path)
            return built.classes or [str(i) for i in range(built.num_classes)]
    raise ValueError(
        f"{config.data.dataset} has no labels and no held-out part, so its classes are not known: "
        "name a teacher's run directory with --teacher.models"
    )


def check_labels(config: Config, data: Data, keep_fraction: float) -> None:
    """A transfer set without labels can only be distilled from, with α = 1."""
    if (data.train.labels >= 0).all():
        return
    if config.teacher.by_correctness:
        raise ValueError(f"{config.data.dataset} has no labels: --teacher.by_correctness needs them")
    if config.teacher.weights == LEARNED:
        raise ValueError(f"{config.data.dataset} has no labels: --teacher.weights {LEARNED} needs them")
    if alpha_policies.search(config.distill.alpha):
        raise ValueError(f"{config.data.dataset} has no labels: --distill.alpha search judges by them, allowed is 1")
    if not config.teacher.models:
        raise ValueError(
            f"{config.data.dataset} has no labels, so no teacher or student can be trained on it alone: name a teacher "
            "that has weights (--teacher.models RUN)"
        )
    alpha = alpha_policies.parse(config.distill.alpha)
    if alpha.schedules or alpha.at(keep_fraction) != 1:
        raise ValueError(
            f"{config.data.dataset} has no labels: --distill.alpha is {config.distill.alpha}, allowed is 1, without a "
            "schedule"
        )
