"""Proxies: models that are trained for nothing but to be observed."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdprune.config import Config, RecordConfig, SeedConfig, StudentConfig, SubsetConfig, TrainConfig
from kdprune.data.counter import key
from kdprune.data.subset import load_subset
from kdprune.pipeline.recipes import dense, overridden, without_teacher
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train
from kdprune.selectors.common.samples import Samples
from kdprune.selectors.common.select import select

log = logging.getLogger("kdprune")

RECORDS = "records"  # the folder of proxies and records in the output


def train_proxies(config: Config, session: Session, train: Train) -> list[Path]:
    """The runs of the proxies of a command, each trained or found."""
    recipes = [proxy_recipe(config, repeat) for repeat in range(config.record.repeats)]
    return _trained(recipes, config, session, train)


def train_on_parts(config: Config, session: Session, train: Train) -> list[Path]:
    """Runs of proxies that see a random part of the data each, trained or found (Feldman & Zhang 2020)."""
    recipes = []
    for repeat in range(config.record.repeats):
        recipe = proxy_recipe(config, repeat)
        recipe.subset = SubsetConfig(file=str(_part(config, session, recipe.seed)))
        recipe.train.record = "none"
        recipes.append(recipe)
    _check_parts(recipes, config, session)
    return _trained(recipes, config, session, train)


def _check_parts(recipes: list[Config], config: Config, session: Session) -> None:
    """Refuse parts that some sample is in all of, or in none: nothing could be said of it."""
    data = session.data
    times_N = np.zeros(len(data.train), dtype=np.int64)
    for recipe in recipes:
        assert recipe.subset.file is not None
        times_N[load_subset(recipe.subset.file).ids] += 1
    times = np.delete(times_N, np.union1d(data.validation, data.train.unreadable))
    if lost := int(((times == 0) | (times == len(recipes))).sum()):
        # A sample is in all parts with probability f^M and in none with (1-f)^M: let 1/50 of a sample be expected.
        share = max(config.record.train_fraction, 1 - config.record.train_fraction)
        enough = max(math.ceil(math.log(100 * len(times)) / -math.log(share)), len(recipes) + 1)
        raise ValueError(
            f"--record.repeats: {len(recipes)} given, with which {lost:,} of {len(times):,} samples would be part of "
            f"all trainings or of none, so that nothing could be said of them; about {enough} are enough for this data "
            f"at --record.train_fraction {config.record.train_fraction:g}"
        )


def _part(config: Config, session: Session, seed: int) -> Path:
    """A file of random samples. It has a seed of its own: that of --seeds.subset decides what is for validation."""
    data, fraction = session.data, config.record.train_fraction
    samples = Samples(data.train.labels, data.fingerprint, data.classes, data.train.unreadable, data.validation)
    path = Path(config.output) / RECORDS / "parts" / data.fingerprint[:8] / f"part-{fraction:g}-{seed}.json"
    if session.accelerator.is_main_process:
        select(samples, fraction, seed=key(seed, "part")).save(path)
    session.accelerator.wait_for_everyone()
    return path


def _trained(recipes: list[Config], config: Config, session: Session, train: Train) -> list[Path]:
    folder = Path(config.output) / RECORDS
    return [train(recipe, session, folder).path for recipe in recipes]


def proxy_recipe(config: Config, repeat: int) -> Config:
    """The recipe of a proxy: the student's own on all data without a teacher, but for what --record.* says."""
    asked = config.record
    new = without_teacher(config)
    new.name = None
    new.seed = (config.seed if asked.seed is None else asked.seed) + repeat
    new.seeds = SeedConfig(subset=config.seed_of("subset"), role="proxy")
    new.subset, new.record, new.student = SubsetConfig(), RecordConfig(), dense(new.student)
    if asked.model is not None and asked.model != config.student.model:
        new.student = StudentConfig(model=asked.model, drop_rate=config.student.drop_rate)
    new.train = proxy_training(config)
    return new


def proxy_training(config: Config) -> TrainConfig:
    """The run's training, with what `--record.train.*` says otherwise."""
    new = replace(config.train, budget="subset", save_epochs=[], save_steps=[], record=config.record.view)
    new = overridden(new, config.record.train)
    if config.record.epoch and config.record.epoch not in new.save_epochs:
        new.save_epochs = sorted([*new.save_epochs, config.record.epoch])
    return new
