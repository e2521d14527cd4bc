"""What a plan chooses from: a recipe at some keep fractions, teachers and α, each of any length. Pure.

A run is as long as its budget allows, so an arm says nothing of its length. Its schedule shrinks and grows with the
run: warm-up and milestones stay the same share of it. What it is made of, such as a teacher that is trained here, keeps
the length that the recipe gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdprune import alpha as alpha_policies
from kdprune.checks import check
from kdprune.config import Config, SeedConfig, TeacherTrainConfig, TrainConfig, config_hash
from kdprune.config.effect import normal_form
from kdprune.messages import about
from kdprune.pipeline.effect import situation_of
from kdprune.pipeline.recipes import overridden, teacher_training
from kdprune.pipeline.score import selects_by_observation
from kdprune.pipeline.train import check_settings
from kdprune.sweep.sections import read_study
from kdprune.sweep.study import Point, Run, Settings, Study, is_seed, with_settings, words
from kdprune.sweep.tuning import VAL_FRACTION

SECTIONS = ("grid", "zip", "arms", "exclude")
KEEP = (0.1, 0.25, 0.5, 1.0)
_FAR_FROM_ONE = 0.2  # an α that 1 is tried beside
# What a plan decides itself, or what makes accuracies of two arms answers to two questions.
_NO_AXES = {"train.steps", "train.epochs", "train.budget", "data.dataset", "data.val_fraction"}
_ANY = 100  # steps, where the length does not matter


@dataclass(frozen=True)
class Sizes:
    """What is known of the data.

    Attributes:
        total: samples of the training set.
        judging: of them, those that are set aside to judge by.
        tested: held-out samples.
        by_test: whether the held-out samples are those that are set aside.
        fingerprint: of the data.
    """

    total: int
    judging: int
    tested: int
    by_test: bool
    fingerprint: str

    @property
    def judge(self) -> str:
        """The result of a run by which arms are judged: never one of held-out data that is no part of training data."""
        return "test_top1" if self.by_test else "val_top1"

    def kept(self, config: Config) -> int:
        """Samples that a run trains on."""
        return max(1, min(self.total - self.judging, round(config.subset.keep_fraction * self.total)))


@dataclass(frozen=True)
class Arm:
    """A recipe whose length is open.

    Attributes:
        config: with the length that the recipe would give it, which only says how its schedule is divided.
    """

    coordinates: Settings
    config: Config

    @property
    def name(self) -> str:
        return words(self.coordinates) or "the recipe"

    def of_length(self, steps: int, kept: int, repeat: int = 0) -> Config:
        """The settings of a run.

        Args:
            kept: samples that it trains on.
            repeat: runs of other numbers have other weights, orders and views, on the same samples.
        """
        new = deepcopy(self.config)
        before = _epochs(self.config.train, kept)
        scale = steps * new.train.batch_size / kept / before
        new.train = replace(
            new.train,
            steps=steps,
            epochs=TrainConfig.epochs,
            budget="subset",
            warmup_epochs=new.train.warmup_epochs * scale,
            decay_milestones=[epoch * scale for epoch in new.train.decay_milestones],
        )
        if repeat:
            new.seeds.weights = new.seed_of("weights") + repeat
            new.seeds.data = new.seed_of("data") + repeat
        return normal_form(situation_of(new))

    def identity(self, kept: int) -> str:
        """Equal for runs of this arm, whatever their length and seeds."""
        return identity(self.of_length(_ANY, kept), kept)


def read_arms(name: str, base: Config, sections: Mapping[str, Any]) -> tuple[Study, list[Arm]]:
    """The arms of a plan, and the study whose runs they are.

    Args:
        sections: see `read_study`; without any, keep fractions from 0.1 to 1 with and without the recipe's teachers.

    Raises:
        ValueError: see `read_study`; an axis that is none of a plan; settings of an arm that do not fit together.
    """
    base = _with_judges(base)
    if any(sections.get(section) for section in SECTIONS):
        study = read_study(name, base, sections)
        for point in (point for axis in study.axes for point in axis):
            _check_axes(point)
    else:
        study = Study(name, base, [list(_usual(base))])
    distinct: dict[str, Run] = {}
    for run in study.runs():
        distinct.setdefault(run.id, run)
    arms = [Arm(run.coordinates, _checked(run)) for run in distinct.values()]
    return study, arms


def identity(config: Config, kept: int) -> str:
    """Equal for runs that differ in their length and seeds only; their schedules are the same shares of their length.

    The seed of the subset is none of these: by another one, a run trains on other samples and is judged by others, too.

    Args:
        config: as a run keeps it, without what has no effect.
    """
    new, train = deepcopy(config), config.train
    if config.teacher.models:
        new.teacher.train = _given(teacher_training(config))
    if selects_by_observation(config):
        new.record.train = _given(overridden(train, config.record.train))
    epochs = _epochs(train, kept)
    milestones = [round(epoch / epochs, 2) for epoch in train.decay_milestones]
    warmup = round(train.warmup_epochs / epochs, 2)
    new.train = replace(
        train, steps=_ANY, epochs=1.0, budget="subset", warmup_epochs=warmup, decay_milestones=milestones
    )
    new.seed, new.seeds = 0, SeedConfig(subset=config.seed_of("subset"), role=config.seeds.role)
    return config_hash(new)


def _epochs(train: TrainConfig, kept: int) -> float:
    """The length of a training in the epochs that its schedule counts."""
    return train.epochs if train.steps is None else train.steps * train.batch_size / kept


def _with_judges(base: Config) -> Config:
    """The recipe with a part of the training set set aside, and with the lengths that its teachers and proxies keep."""
    new = with_settings(base, {})
    new.data.val_fraction = base.data.val_fraction or VAL_FRACTION
    for group, before in (
        (new.teacher.train, teacher_training(base)),
        (new.record.train, overridden(base.train, base.record.train)),
    ):
        for name in ("epochs", "steps", "warmup_epochs", "decay_milestones"):
            setattr(group, name, getattr(before, name))
    return new


def _given(train: TrainConfig) -> Any:
    return TeacherTrainConfig(**asdict(replace(train, epochs=float(train.epochs))))


def _usual(base: Config) -> Iterator[Point]:
    for keep in KEEP:
        yield _point({"subset.keep_fraction": keep, "teacher.models": []})
        if not base.teacher.models:
            continue
        guided = {"subset.keep_fraction": keep, "teacher.models": base.teacher.models}
        yield _point({**guided, "distill.alpha": base.distill.alpha})
        if alpha_policies.search(base.distill.alpha) is None:
            alpha = alpha_policies.parse(base.distill.alpha).at(keep)
            if alpha < 1 - _FAR_FROM_ONE:
                yield _point({**guided, "distill.alpha": 1.0})


def _point(settings: Settings) -> Point:
    return Point(settings, settings, "grid")


def _check_axes(point: Point) -> None:
    for name in point.settings:
        if is_seed(name):
            raise ValueError(f"{point.section}.{name}: pilots have seeds of their own, and the run has the recipe's")
        if name in _NO_AXES:
            reason = "the plan says how long runs are" if name.startswith("train.") else "arms would not be comparable"
            raise ValueError(f"{point.section}.{name}: no axis of a plan, since {reason}")


def _checked(run: Run) -> Config:
    with about(words(run.coordinates)):
        check(run.config)
        if alpha_policies.search(run.config.distill.alpha) is not None:
            raise ValueError("--distill.alpha: search given; a plan tries values of α itself, such as 0.5 and 1")
        if run.config.subset.dynamic is not None:
            raise ValueError(
                f"--subset.dynamic: {run.config.subset.dynamic} given; a plan needs runs that keep the same samples"
            )
        check_settings(run.config)
    return normal_form(situation_of(run.config))
