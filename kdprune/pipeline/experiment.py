"""What `kdprune train` does: teachers, student, and for comparison the student without a teacher."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdprune import alpha as alpha_policies
from kdprune.checks import EMA, LEARNED
from kdprune.config import Config, TeacherConfig, config_hash
from kdprune.losses.common.sum import WeightedSum, build_loss
from kdprune.models.features import last_stages
from kdprune.pipeline.arms import check_models, run_name, teacher_config, without_teacher
from kdprune.pipeline.ensemble_weights import learn, unseen
from kdprune.pipeline.search import search_alpha, with_found
from kdprune.pipeline.summary import summarise
from kdprune.pipeline.workbench import Workbench, check_labels
from kdprune.runs.accelerator import environment, make_accelerator
from kdprune.runs.run_dir import RunDir
from kdprune.teachers.teacher import Teacher
from kdprune.training.feature_losses import layers_given, rehearse
from kdprune.training.metrics import start_trackers, stop_trackers
from kdprune.training.optimizer import check_optimizer
from kdprune.training.task import Task
from kdprune.training.trainer import Trainer

log = logging.getLogger("kdprune")


def run(config: Config) -> dict[str, Any]:
    """Train what the configuration says; the student's summary (see `run_arms`)."""
    return run_arms(config)[0]


def run_arms(config: Config) -> list[dict[str, Any]]:
    """Train what the configuration says; the summaries of the student and of the baseline, if one is asked for.

    Raises:
        ValueError: a setting that does not fit; said before any training, with what is allowed.
        Interrupted, FloatingPointError: see `Trainer.fit`.
    """
    config.check()
    check_optimizer(config.train.opt)
    check_models(config)
    accelerator = make_accelerator(config.train.precision, list(config.log_with), config.output)
    return Experiment(config, accelerator).run()


class Experiment(Workbench):
    """One `kdprune train`."""

    def run(self) -> list[dict[str, Any]]:
        arms = [self.config]
        if self.config.baseline and self.config.teacher.models:
            arms.append(without_teacher(self.config))
        runs = [RunDir(Path(arm.output) / run_name(arm), arm) for arm in arms]  # refuses a name that is taken
        if len(runs) > 1 and runs[1].summary is None and (self.data.train.labels < 0).any():
            log.warning("%s has no labels: the baseline without a teacher is left out", self.config.data.dataset)
            del runs[1]
        summaries = [run.summary or self.train(run) for run in runs]
        for run, before in zip(runs, [run.summary for run in runs], strict=True):
            assert before is not None
            log.info("%s is finished", run.path)
        return summaries

    def train(self, run: RunDir) -> dict[str, Any]:
        """One arm: its teachers if it has some, its subset, its student."""
        config, data, accelerator = run.config, self.data, self.accelerator
        kd = None
        if config.teacher.models:
            kd = self.loss(config)
        subset = self.subset(config)
        check_labels(config, data, subset.keep_fraction)
        if kd is not None and alpha_policies.search(config.distill.alpha) is None:
            alpha_policies.parse(config.distill.alpha).at(subset.keep_fraction)  # a subset file may keep another one
        built = self.student(config)  # before a teacher is trained: it may not be possible
        for name, _, has_weights in self.wanted(config):
            if kd is not None and kd.needs_features and not has_weights:
                rehearse(config, built, self.student(teacher_config(config, name)))
        judges = unseen(self, config) if config.teacher.weights == LEARNED else None
        teachers = self.teachers(config, kd is not None and kd.needs_features)
        if judges is not None:
            config = replace(config, teacher=replace(config.teacher, weights=learn(self, config, teachers, judges)))
        if accelerator.is_main_process:
            run.start(environment(accelerator))
            subset.save(run.path / "subset.json")
        if kd is not None and kd.needs_features and not config.distill.layers:
            pairs = last_stages(built.model, teachers[0].engine.network)
            log.info("features are compared between %s", ", ".join(f"{a} and {b}" for a, b in pairs))
            kd = build_loss(config.distill.loss, config.distill.temperature, pairs)
            kd.check(data.num_classes)
        reader = self.reader(config, built, subset)
        found: dict[str, Any] | None = None
        if kd is not None and alpha_policies.search(config.distill.alpha):
            found = search_alpha(self, run.path, config, teachers, subset, reader, kd.layers)
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

    def loss(self, config: Config) -> WeightedSum:
        """The distillation loss, checked against the data, the teachers and each T that a search may choose."""
        if config.teacher.top_k and config.teacher.targets == "online":
            log.warning("--teacher.top_k has no effect: --teacher.targets online keeps nothing")
        layers = layers_given(config)
        kd = build_loss(config.distill.loss, config.distill.temperature, layers)
        self.check_loss(kd, config)
        wanted = alpha_policies.search(config.distill.alpha)
        for temperature in wanted.temperatures if wanted else ():
            candidate = replace(config, distill=replace(config.distill, temperature=temperature))
            tried = build_loss(config.distill.loss, temperature, layers)
            if temperature not in [getattr(loss, "temperature", None) for loss in tried.modules()]:
                raise ValueError(
                    f"--distill.alpha: {config.distill.alpha} given, and no part of {config.distill.loss!r} takes its "
                    "temperature from the run; allowed is a search over α alone"
                )
            self.check_loss(tried, candidate)
        return kd

    def teachers(self, config: Config, with_features: bool) -> list[Teacher]:
        """Load the teachers that have weights, then train those that have none; measure all of them."""
        teacher = config.teacher
        if teacher.models == [EMA]:
            return []
        given = [
            self._load(config, name, checkpoint) if has_weights else None
            for name, checkpoint, has_weights in self.wanted(config)
        ]
        if given and None not in given:
            _warn_of_unused(teacher)
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


def _warn_of_unused(teacher: TeacherConfig) -> None:
    """Settings of a training that does not take place."""
    for name in ("epochs", "train_fraction", "augment", "drop_rate", "save_epochs", "snapshot", "generations"):
        if getattr(teacher, name) != getattr(TeacherConfig(), name):
            log.warning("--teacher.%s has no effect: all teachers have weights, so none is trained here", name)


def _share(teacher: TeacherConfig) -> str:
    return "the full data" if teacher.train_fraction == 1 else f"{teacher.train_fraction:.0%} of the data"
