"""What a command will do with its settings, as far as it decides which of them matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdprune.config.settings import Config, TrainConfig

FROM_SCORES = "analyse noise --scores"  # a command that reads nothing but a score file


@dataclass(frozen=True)
class Training:
    """One of the trainings that a command does.

    Attributes:
        group: of the settings that are for it alone: "train", "teacher.train" or "record.train".
        settings: with which it is done.
        own: names of those that it does not take from `train`.
        has_momentum: whether its optimizer does.
    """

    group: str
    settings: TrainConfig
    own: frozenset[str] = frozenset()
    has_momentum: bool = True

    def reads(self, group: str, name: str) -> bool:
        """Whether it reads the setting GROUP.NAME."""
        return self.group == group or (group == "train" and name not in self.own)


@dataclass(frozen=True)
class Situation:
    """The settings, the command, and what is known of the plug-ins and models that are named.

    Attributes:
        command: as it is typed after `kdprune`.
        trainings: all that will be done, unless they are found.
        reads_scores, reads_features: whether the choice of samples, or a dynamic order, does.
        draws_each_epoch: whether each epoch is drawn from all samples.
        asks_for_records: whether scores or features are asked for that come from records.
        records: kinds of what will be observed.
        weightless: teachers that are known by a model's name only.
        loss_reads: settings of the run that a part of the loss takes: temperature, layers.
        alpha: if it is one number, that; else None.
        searches: whether it is searched for.
    """

    config: Config
    command: str = "train"
    trainings: tuple[Training, ...] = ()
    reads_scores: bool = False
    reads_features: bool = False
    draws_each_epoch: bool = False
    asks_for_records: bool = False
    records: frozenset[str] = frozenset()
    weightless: tuple[str, ...] = ()
    loss_reads: frozenset[str] = frozenset({"temperature"})
    alpha: float | None = None
    searches: bool = False

    @property
    def trains_student(self) -> bool:
        """To fill a cache is to prepare the training of a student, with the same settings."""
        return self.command in ("train", "cache")

    @property
    def opens_data(self) -> bool:
        return self.command != FROM_SCORES

    @property
    def builds_student(self) -> bool:
        return self.trains_student or (self.trains_proxies and self.config.record.model is None)

    @property
    def trains_teacher(self) -> bool:
        return any(training.group == "teacher.train" for training in self.trainings)

    @property
    def trains_proxies(self) -> bool:
        return any(training.group == "record.train" for training in self.trainings)

    @property
    def has_mask(self) -> bool:
        """Whether the student's weights are pruned."""
        return self.config.student.mask is not None or self.config.student.sparsity > 0

    @property
    def prunes(self) -> bool:
        """Whether a pruner says which of them."""
        return self.config.student.mask is None and self.config.student.sparsity > 0

    @property
    def makes_views(self) -> bool:
        return self.trains_student or bool(self.trainings)

    @property
    def repeats(self) -> bool:
        return bool(self.records - {"embeddings"})

    @property
    def observes_teacher(self) -> bool:
        """Whether something is recorded of a teacher."""
        record = self.config.record
        kinds = {"teacher"}
        kinds |= {"dynamics"} if record.source != "proxy" else set()
        kinds |= {"embeddings"} if record.embeddings is None else set()
        return bool(self.records & kinds)

    @property
    def listens(self) -> bool:
        """Whether teachers are there for anything."""
        return self.alpha != 0 or self.command != "train" or self.observes_teacher

    @property
    def distils(self) -> bool:
        """Whether anything is: a student, or the next generation of teachers."""
        teacher = self.config.teacher
        return bool(teacher.models) and (self.trains_student or (self.trains_teacher and teacher.generations > 1))

    @property
    def keeps_targets(self) -> bool:
        """Whether targets are cached: those of the run, or of the candidates of a search for α."""
        return self.config.teacher.targets == "cached" or self.searches

    @property
    def averages(self) -> bool:
        """Whether the teacher is the student's own moving average."""
        return self.config.teacher.models == ["ema"]

    @property
    def reads_temperature(self) -> bool:
        """By the loss, by the mean of several teachers, and by targets that are rebuilt from their largest logits."""
        teacher = self.config.teacher
        return "temperature" in self.loss_reads or len(teacher.models) > 1 or teacher.top_k is not None

    @property
    def draws_all(self) -> bool:
        """Whether an order that draws each epoch from all samples draws all of them."""
        return self.draws_each_epoch and self.config.subset.keep_fraction == 1

    def readers(self, group: str, name: str) -> Iterator[Training]:
        """The trainings that read the setting GROUP.NAME."""
        return (training for training in self.trainings if training.reads(group, name))

    def describe(self) -> dict[str, Any]:
        """What the words of a condition may name."""
        return {"config": self.config, "command": self.command}
