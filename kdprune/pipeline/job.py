"""A run before its teachers are there: what is trained on which samples, for how long; and all that can be refused."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from kdprune import alpha as alpha_policies
from kdprune.checks import LEARNED
from kdprune.config import Config
from kdprune.data import recipe
from kdprune.data.counter import key
from kdprune.data.dataset import Data
from kdprune.data.reader import Reader
from kdprune.data.size import size_of
from kdprune.data.stream import Adaptive
from kdprune.data.subset import Subset
from kdprune.data.view_settings import ViewSettings
from kdprune.losses.common.sum import WeightedSum
from kdprune.messages import counted, listed
from kdprune.models.build import build_student
from kdprune.models.mask import Mask
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.orders.common.plan import Dynamic
from kdprune.pipeline.dynamic import OPTION, keep_fraction, make_length
from kdprune.pipeline.ensemble_weights import unseen, warn_of_seen_validation
from kdprune.pipeline.given import is_given
from kdprune.pipeline.loss import make_loss
from kdprune.pipeline.samples import choose_subset
from kdprune.pipeline.session import Session
from kdprune.pruners.common.when import END, INIT
from kdprune.training.observers import Observer
from kdprune.training.schedule import Budget
from kdprune.training.task import check_batch

log = logging.getLogger("kdprune")


@dataclass
class Job:
    """What is to be trained.

    Attributes:
        student: before its first step, on the host.
        loss: of distillation; None for plain training.
        judges: training samples by which the weights of teachers are learned; None unless that is asked for.
        observers: who looks on while the student is trained, beside those that every run has.
        dynamic: what the epochs hold, as planned before any is trained; None where each holds all kept samples.
        mask: which weights the student has, if that is settled before its first step; None for all.
    """

    config: Config
    session: Session
    subset: Subset
    student: BuiltModel
    views: ViewSettings
    budget: Budget
    loss: WeightedSum | None
    judges: np.ndarray | None = None
    observers: Sequence[Observer] = ()
    dynamic: Dynamic | None = None
    mask: Mask | None = None

    @property
    def labelled(self) -> bool:
        return bool((self.session.data.train.labels >= 0).all())

    def reader(self) -> Reader:
        """Of views; mixing partners are drawn from the kept samples."""
        data = self.session.data
        return Reader(data.train, self.views, self.subset.ids, data.num_classes, self.session.place)


def make_job(config: Config, session: Session, observers: Sequence[Observer] = ()) -> Job:
    """Put a run together, and refuse what cannot be, before any teacher is trained for it.

    Args:
        observers: who looks on while the student is trained.

    Raises:
        ValueError: whatever does not fit together, said in terms of the options.
    """
    loss = make_loss(config, session) if config.teacher.models else None
    subset = choose_subset(config, session)
    if loss is not None and alpha_policies.search(config.distill.alpha) is None:
        # A subset file may keep another fraction than the settings say.
        alpha_policies.parse(config.distill.alpha).at(keep_fraction(config, subset))
    student = make_student(config, session)
    views = view_settings(config, session.data, student.spec)
    budget, dynamic = make_length(config, session, subset)
    check_batch(config.train, session.accelerator.num_processes)
    _warn_of_length(config, budget)
    _check_snapshots(config, budget)
    check_rewinding(config, budget, dynamic, config.student.checkpoint is not None)
    _check_record(config, budget)
    if config.train.save_steps and isinstance(dynamic, Adaptive):
        log.warning("--train.save_steps: %s takes fewer than %d steps", config.subset.dynamic, budget.steps)
    if loss is not None and loss.relational and dynamic is not None and dynamic.weighs:
        raise ValueError(
            f"{OPTION}: {config.subset.dynamic} given, which weighs the loss of each sample, and --distill.loss "
            f"{config.distill.loss} compares samples with each other"
        )
    warn_of_seen_validation(config, session)
    judges = unseen(config, session) if config.teacher.weights == LEARNED else None
    return Job(config, session, subset, student, views, budget, loss, judges, observers, dynamic)


def make_student(config: Config, session: Session) -> BuiltModel:
    """The model that a run trains, with its first weights."""
    if is_given(config.student.model):
        assert session.student is not None
        return deepcopy(session.student)
    data = session.data
    seed = config.seed_of("weights")
    if config.student.mask_check == "reinit":
        seed = key(seed, "reinit")
    # A teacher of the same kind and seed as its student begins elsewhere.
    torch.manual_seed(seed if config.seeds.role == "student" else key(seed, f"{config.seeds.role} weights"))
    student = config.student
    return build_student(
        student.model,
        data.num_classes,
        channels=data.channels,
        image_size=config.data.image_size or data.stored_size,
        mean=data.mean,
        std=data.std,
        img_size=config.data.image_size,
        pretrained=student.pretrained,
        checkpoint=student.checkpoint,
        classes=data.classes,
        drop_rate=student.drop_rate,
    )


def view_settings(config: Config, data: Data, student: InputSpec) -> ViewSettings:
    """How a run's views are made: at its size or the data's, else the student's; scaled as the student wants it."""
    return ViewSettings(
        recipe=recipe.parse(config.data.augment),
        size=size_of(config.data.image_size or data.stored_size or student.size),
        seed=config.seed_of("data"),
        fill=tuple(round(255 * m) for m in data.mean),
        stored=data.train.images is not None,
        role=config.seeds.role,
        interpolation=student.interpolation,
    )


def _warn_of_length(config: Config, budget: Budget) -> None:
    """A warm-up that does not end, and a batch that holds samples more than once."""
    train, whose = config.train, "" if config.seeds.role == "student" else f" of the {config.seeds.role}"
    warmup = round(train.warmup_epochs * budget.schedule_epoch)
    if warmup and warmup >= budget.steps:
        log.warning(
            "--train.warmup_epochs: %g given (%d steps), and the training%s has %d steps: --train.lr is never reached",
            *(train.warmup_epochs, warmup, whose, budget.steps),
        )
    if budget.batch_size > budget.kept:
        log.warning(
            "--train.batch_size: %d given, and the training%s is of %d samples: a batch holds them more than once",
            *(budget.batch_size, whose, budget.kept),
        )


def _check_record(config: Config, budget: Budget) -> None:
    """Refuse a record of views whose epoch or label is not known."""
    record = config.train.record
    if record != "none" and config.subset.dynamic is not None:
        raise ValueError(f"--train.record: {record} given, and with --subset.dynamic epochs differ; allowed is none")
    if record != "training":
        return
    option = f"--{'record.view' if config.seeds.role == 'proxy' else 'train.record'}: training given, and"
    if recipe.parse(config.data.augment).mixes:
        raise ValueError(f"{option} --data.augment {config.data.augment} mixes labels; allowed is plain")
    if config.teacher.views is not None:
        raise ValueError(f"{option} with --teacher.views epochs share their views; allowed is plain")
    # A teacher's is recorded because it costs nothing, not because it was asked for.
    if budget.steps * budget.batch_size < budget.kept and config.seeds.role != "teacher":
        raise ValueError(f"{option} {budget.steps} steps are no whole epoch; allowed is plain")


def _check_snapshots(config: Config, budget: Budget) -> None:
    """Refuse snapshots that never come, by the options of whose training it is."""
    group, one_of = {
        "student": ("--train", None), "teacher": ("--teacher.train", "--teacher.snapshot"),
        "proxy": ("--record.train", "--record.epoch"),
    }[config.seeds.role]  # fmt: skip
    begin = config.student.rewind_to
    for name, given, least, most in (("epochs", config.train.save_epochs, begin / budget.epoch, budget.epochs),
                                     ("steps", config.train.save_steps, begin, budget.steps)):  # fmt: skip
        least = math.floor(least) + 1
        if wrong := [one for one in given if not least <= one <= most]:
            written = f"{group}.save_{name}"
            raise ValueError(
                f"{one_of + ' or ' if one_of and name == 'epochs' else ''}{written}: {listed(wrong)} given, and "
                f"{config.student.model} is trained for {counted(most, name[:-1])}: allowed are {least} to {most}"
            )


def check_rewinding(config: Config, budget: Budget, dynamic: Dynamic | None, with_weights: bool) -> None:
    """Refuse to begin where the training does not come by, or with what is only known of one from its first step on.

    Args:
        with_weights: whether there are, or will be, weights of that step.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    first = config.student.rewind_to
    if not first:
        return
    given = f"--student.rewind_to: {first} given, and"
    if first >= budget.steps:
        raise ValueError(f"{given} the training has {budget.steps} steps: allowed is 0 to {budget.steps - 1}")
    if not with_weights:
        raise ValueError(f"{given} no --student.checkpoint, whose weights a training had after that step")
    if isinstance(dynamic, Adaptive):
        raise ValueError(f"{given} {OPTION} {config.subset.dynamic} goes by the losses of all steps before")
    if config.train.record != "none":
        raise ValueError(f"{given} --train.record {config.train.record} is of all epochs; allowed is none")
    if config.student.sparsity and config.student.mask is None and config.student.prune_at not in (INIT, END):
        raise ValueError(f"{given} --student.prune_at {config.student.prune_at}; allowed are {INIT}, {END}, or a mask")
