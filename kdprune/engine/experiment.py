"""What `kdprune train` does: data, teachers, subset, student, and for comparison the student without a teacher."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from kdprune import alpha as alpha_policies
from kdprune.config import EMA, Config, DistillConfig, SubsetConfig, TeacherConfig, config_hash
from kdprune.data import recipe
from kdprune.data.dataset import Data, open_data
from kdprune.data.reader import Reader, ViewSettings
from kdprune.data.stream import total_steps
from kdprune.data.subset import Subset, class_ids, load_subset, select
from kdprune.engine.evaluation import evaluate, held_out
from kdprune.engine.optim import check_optimizer
from kdprune.engine.run_dir import RunDir
from kdprune.engine.runtime import DTYPES, device_name, environment, make_accelerator
from kdprune.engine.search import search_alpha, with_found
from kdprune.engine.table import print_table
from kdprune.engine.trainer import Task, Trainer, start_trackers, stop_trackers
from kdprune.losses._sum import build_loss
from kdprune.losses.expression import parse as parse_loss
from kdprune.models.build import (
    Built,
    build_student,
    build_teacher,
    check_model_name,
    count_parameters,
    resolve_teacher,
)
from kdprune.models.features import Features, last_stages
from kdprune.teachers.cache import CacheKey, TargetCache
from kdprune.teachers.entries import make_entries
from kdprune.teachers.targets import CachedTargets, MeanTargets, OnlineTargets
from kdprune.teachers.teacher import Teacher, make_teacher, warn_if_near_chance, warn_if_smoothed

log = logging.getLogger("kdprune")


def run(config: Config) -> dict[str, Any]:
    """Train what the configuration says; print a table; return the student's summary.

    Raises:
        ValueError: a setting that does not fit; said before any training, with what is allowed.
        Interrupted, FloatingPointError: see `Trainer.fit`.
    """
    config.check()
    check_optimizer(config.train.opt)
    check_models(config)
    accelerator = make_accelerator(config.train.precision, list(config.log_with), config.output)
    return Experiment(config, accelerator).run()


class Experiment:
    """One `kdprune train`: everything that its trainings share."""

    def __init__(self, config: Config, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self._data: Data | None = None
        self._images: torch.Tensor | None = None

    def run(self) -> dict[str, Any]:
        arms = [self.config]
        if self.config.baseline and self.config.teacher.models:
            arms.append(without_teacher(self.config))
        runs = [RunDir(Path(arm.output) / run_name(arm), arm) for arm in arms]  # refuses a name that is taken
        summaries = [run.summary or self.train(run) for run in runs]
        for run, before in zip(runs, [run.summary for run in runs], strict=True):
            assert before is not None
            log.info("%s is finished", run.path)
        if self.accelerator.is_main_process:
            print_table(summaries)
        return summaries[0]

    @property
    def data(self) -> Data:
        """The data set, opened when first needed: a finished run does not need it."""
        if self._data is None:
            main = self.accelerator.is_main_process
            with self.accelerator.main_process_first():
                self._data = open_data(self.config.data, progress=main)
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

    def train(self, run: RunDir) -> dict[str, Any]:
        """One arm: its teachers if it has some, its subset, its student."""
        config, data, accelerator = run.config, self.data, self.accelerator
        kd = None
        if config.teacher.models:
            kd = build_loss(config.distill.loss, config.distill.temperature, _pairs(config.distill.layers))
            self.check_loss(kd, config)
        subset = self.subset(config)
        check_labels(config, data)
        teachers = self.teachers(config, kd is not None and kd.needs_features)
        if accelerator.is_main_process:
            run.start(environment(accelerator))
            subset.save(run.path / "subset.json")
        built = self.student(config)
        if kd is not None and kd.needs_features and not config.distill.layers:
            pairs = last_stages(built.model, teachers[0].engine.network)
            log.info("features are compared between %s", ", ".join(f"{a} and {b}" for a, b in pairs))
            kd = build_loss(config.distill.loss, config.distill.temperature, pairs)
            kd.check(data.num_classes)
        reader = self.reader(config, built, subset)
        found: dict[str, Any] | None = None
        if kd is not None and alpha_policies.search(config.distill.alpha):
            found = search_alpha(self, run, teachers, subset, reader, kd.layers)
            config = with_found(config, found)
            kd = build_loss(config.distill.loss, config.distill.temperature, kd.layers)
        targets = None if kd is None else self.targets(config, kd, teachers, subset, reader)
        task = Task(
            run, built, data, reader, subset, targets, kd,
            alpha_policies.parse(config.distill.alpha) if kd is not None else None,
            config.teacher.views if kd is not None else None,
            label=f"{config.student.model}{'' if kd is None else ' + KD'}",
        )  # fmt: skip
        start_trackers(accelerator, run)
        trainer = Trainer(task, accelerator)
        result = trainer.fit()
        stop_trackers(accelerator)
        summary = summarise(config, data, subset, built, teachers, targets, result, accelerator)
        summary["config_hash"] = config_hash(run.config)
        if found is not None:
            summary["cost"]["alpha_search"] = found["cost"]
        if accelerator.is_main_process:
            run.finish(summary)
            trainer.checkpoints.clear()
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        return summary

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
                f"{s.recipe}, {s.size} px, filled with {s.fill}", s.seed, entries.about,
            )  # fmt: skip
            caches.append(TargetCache(cache_folder(config, teacher, key, index), key, subset.ids, entries))
        views = self.views(config, subset)
        missing = sum(cache.missing_bytes(views) for cache in caches)
        log.info(
            "cached targets: %d views of %d samples, %.3g GiB in all, %.3g GiB to be reserved, in %s",
            views, len(subset.ids), views * sum(c.bytes_per_view for c in caches) / 2**30, missing / 2**30,
            ", ".join(str(cache.folder) for cache in caches),
        )  # fmt: skip
        for cache in caches:
            cache.check_space(views)
        return caches

    def views(self, config: Config, subset: Subset) -> int:
        """How many different views of a sample the run meets."""
        train = config.train
        steps = total_steps(train.epochs, train.steps, train.budget, len(subset.ids), subset.total, train.batch_size)
        epochs = -(-steps * train.batch_size // len(subset.ids))
        return min(config.teacher.views or epochs, epochs)

    def check_loss(self, kd: Any, config: Config) -> None:
        if config.distill.layers or not kd.needs_features:  # else the layers are found when both models are there
            kd.check(self.data.num_classes)
        if kd.needs_features and len(config.teacher.models) > 1:
            raise ValueError(f"--distill.loss: {config.distill.loss!r} compares features, which needs one teacher")
        if kd.needs_features and config.teacher.targets == "cached":
            raise ValueError(f"--distill.loss: {config.distill.loss!r} compares features, which no cache holds")
        if kd.needs_labels and (self.data.train.labels < 0).any():
            raise ValueError(f"--distill.loss: {config.distill.loss!r} needs labels, and the data set has none")
        if recipe.parse(config.data.augment).mixes and not kd.accepts_mixed_labels:
            raise ValueError(f"--distill.loss: {config.distill.loss!r} cannot use the mixed labels of --data.augment")

    def subset(self, config: Config) -> Subset:
        data, wanted = self.data, config.subset
        if wanted.file:
            return load_subset(wanted.file, data.fingerprint, len(data.train))
        return select(
            data.train.labels, data.fingerprint, wanted.keep_fraction, wanted.selector, wanted.balanced,
            config.seed, data.dropped, class_ids(list(wanted.without_classes), data.classes),
        )  # fmt: skip

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

    def teachers(self, config: Config, with_features: bool) -> list[Teacher]:
        """Load the teachers that have weights, then train those that have none; measure all of them."""
        teacher = config.teacher
        if teacher.models == [EMA]:
            return []
        checkpoints: Sequence[str | None] = list(teacher.checkpoints) or [None] * len(teacher.models)
        given = [
            self._load(config, name, checkpoint)
            if checkpoint or teacher.pretrained or resolve_teacher(name) is not None
            else None
            for name, checkpoint in zip(teacher.models, checkpoints, strict=True)
        ]
        teachers = []
        for name, built in zip(teacher.models, given, strict=True):
            summary = None
            source = name if built is None or name != built.name else "given weights"
            if built is None:
                recipe_of_teacher = teacher_config(config, name)
                run = RunDir(Path(config.output) / "teachers" / run_name(recipe_of_teacher), recipe_of_teacher)
                summary = run.summary
                if summary is None:
                    log.info("teacher %s has no weights: it is trained first, on %s", name, _share(teacher))
                    summary = self.train(run)
                else:
                    log.info("teacher %s: %s", name, run.path)
                source = str(run.path)
                at = "" if teacher.snapshot is None else f"@{teacher.snapshot}"
                built = self._load(config, f"{run.path}{at}", None)
            teachers.append(self._freeze(config, built, source, with_features))
            teachers[-1].training = summary
        return teachers

    def _load(self, config: Config, name: str, checkpoint: str | None) -> Built:
        data = self.data
        return build_teacher(
            name, data.num_classes, channels=data.channels, image_size=config.data.image_size or data.stored_size,
            mean=data.mean, std=data.std, checkpoint=checkpoint, pretrained=config.teacher.pretrained,
            classes=data.classes,
        )  # fmt: skip

    def _freeze(self, config: Config, built: Built, source: str, with_features: bool) -> Teacher:
        accelerator, data = self.accelerator, self.data
        fold = config.teacher.engine == "frozen" and not with_features
        batches = held_out(data, built.spec, accelerator, 128) if data.test is not None else []
        example = next(iter(batches), None)
        images = example.images if example is not None else torch.zeros(1)
        teacher = make_teacher(
            built, source, images[:64], accelerator.device, DTYPES[accelerator.mixed_precision], fold,
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
    return ViewSettings(recipe.parse(config.data.augment), size, config.seed, fill)


def check_labels(config: Config, data: Data) -> None:
    """A transfer set without labels can only be distilled from, with α = 1."""
    if (data.train.labels >= 0).all():
        return
    if config.teacher.by_correctness:
        raise ValueError(f"{config.data.dataset} has no labels: --teacher.by_correctness needs them")
    wanted = alpha_policies.search(config.distill.alpha)
    alpha = min(wanted.alphas) if wanted else alpha_policies.parse(config.distill.alpha).at(config.subset.keep_fraction)
    if not config.teacher.models:
        raise ValueError(f"{config.data.dataset} has no labels: it can only be used with a teacher (--teacher.models)")
    if alpha != 1:
        raise ValueError(f"{config.data.dataset} has no labels: --distill.alpha gives {alpha:g}, allowed is 1")


def teacher_config(config: Config, name: str) -> Config:
    """The recipe of a teacher that is trained here: the run's own, on the full data, without a teacher."""
    teacher = config.teacher
    new = without_teacher(config)
    new.name, new.seed = None, teacher.seed
    new.subset = SubsetConfig(keep_fraction=teacher.train_fraction)
    new.student = type(config.student)(model=name, drop_rate=teacher.drop_rate)
    new.data.augment = teacher.augment or config.data.augment
    new.train.budget, new.train.save_epochs = "subset", list(teacher.save_epochs)
    if teacher.epochs is not None:
        new.train.epochs, new.train.steps = teacher.epochs, None
    if teacher.snapshot is not None and teacher.snapshot not in new.train.save_epochs:
        new.train.save_epochs = sorted([*new.train.save_epochs, teacher.snapshot])
    return new


def without_teacher(config: Config) -> Config:
    """The same student on the same subset, trained on hard labels alone."""
    new = deepcopy(config)
    new.name = f"{config.name}-no-kd" if config.name else None
    new.teacher, new.distill, new.baseline = TeacherConfig(), DistillConfig(), False
    return new


def run_name(config: Config) -> str:
    """The run's name, or one that says what it is and ends with a hash of its settings."""
    if config.name:
        return config.name
    kind = "kd" if config.teacher.models else "plain"
    keep = Path(config.subset.file).stem if config.subset.file else f"{config.subset.keep_fraction:g}"
    parts = [config.data.dataset.rstrip("/").split("/")[-1], config.student.model, f"f{keep}", kind, f"s{config.seed}"]
    return re.sub(r"[^\w.\-]+", "_", "-".join([*parts, config_hash(config)[:8]]))


def summarise(
    config: Config, data: Data, subset: Subset, built: Built, teachers: list[Teacher], targets: OnlineTargets | None,
    result: dict[str, Any], accelerator: Accelerator,
) -> dict[str, Any]:  # fmt: skip
    """summary.json (see docs/DESIGN.md for what it must hold)."""
    alpha = alpha_policies.parse(config.distill.alpha).at(subset.keep_fraction) if config.teacher.models else 0.0
    seen = result["images_seen"]
    parameters = count_parameters(built.model)
    described = [teacher.summary() for teacher in teachers]
    if config.teacher.models == [EMA]:
        described = [{"name": EMA, "source": "the student", "parameters": parameters, "test_top1": result["test_top1"]}]
    nothing = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0}
    trained = [teacher.training["cost"]["student_training"] for teacher in teachers if teacher.training]
    asked = 0 if targets is None else targets.spent.forward_samples * accelerator.num_processes
    cost = {
        "observation": nothing,
        "teacher_training": {key: sum(cost[key] for cost in trained) for key in nothing},
        # A cache that fills on the way costs its passes here and its seconds in the student's training.
        "target_caching": {**nothing, "forward_samples": asked if config.teacher.targets == "cached" else 0},
        "student_training": {
            "seconds": result["train_seconds"], "forward_samples": seen, "backward_samples": seen,
            "teacher_forward_samples": asked if config.teacher.targets == "online" else 0,
        },
    }  # fmt: skip
    return {
        **result,
        "keep_fraction": subset.keep_fraction,
        "kept": len(subset.ids),
        "total": subset.total,
        "dropped": len(subset.dropped),
        "budget": config.train.budget,
        "alpha": alpha,
        "alpha_policy": str(config.distill.alpha) if described else None,
        "temperature": config.distill.temperature if described else None,
        "loss": str(config.distill.loss) if described else None,
        "teacher": described,
        "student": {"name": built.name, "parameters": parameters},
        "seed": config.seed,
        "dataset": config.data.dataset,
        "cost": cost,
        "config_hash": config_hash(config),
        "subset_hash": subset.hash,
        "dataset_fingerprint": data.fingerprint,
        "device": device_name(accelerator.device),
        "precision": accelerator.mixed_precision,
    }


def _pairs(layers: list[list[str]]) -> list[tuple[str, str]]:
    if wrong := [pair for pair in layers if len(pair) != 2]:
        raise ValueError(f"--distill.layers: {wrong[0]} given, allowed are pairs [student path, teacher path]")
    return [(student, teacher) for student, teacher in layers]


def check_models(config: Config) -> None:
    check_model_name(config.student.model)
    for name in config.teacher.models:
        if name == EMA:
            continue
        if resolve_teacher(name) is None:
            check_model_name(name)
    parse_loss(config.distill.loss)


def _share(teacher: TeacherConfig) -> str:
    return "the full data" if teacher.train_fraction == 1 else f"{teacher.train_fraction:.0%} of the data"
