"""Which settings matter to a command, by what its plug-ins and models say of themselves."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from timm.optim import get_optimizer_info

from kdprune import alpha as alpha_policies
from kdprune import registry
from kdprune.calls import parse_call
from kdprune.config import Config, TrainConfig
from kdprune.config.effect import in_words, normal_form, without_effect, worth_saying
from kdprune.config.situation import Situation, Training
from kdprune.losses.common.expression import parse
from kdprune.pipeline.dynamic import needs_scores, redraws
from kdprune.pipeline.proxies import proxy_training
from kdprune.pipeline.recipes import teacher_training
from kdprune.pipeline.teachers import has_weights, requested_teachers
from kdprune.scorers.common.apply import bound, declared
from kdprune.selectors.common.select import needs_of

log = logging.getLogger("kdprune")

_NOT_INHERITED = ("budget", "save_epochs", "save_steps", "record")  # of train.*, by teachers and proxies


def settled(config: Config, command: str = "train", records: Collection[str] | None = None) -> Config:
    """The settings without those that have no effect, of which the log says so.

    To be called once a command, before it derives other settings from these.

    Args:
        command: as it is typed after `kdprune`.
        records: kinds of records that the command makes (default: those that the choice of samples asks for).
    """
    situation = situation_of(config, command, records)
    for line in in_words(worth_saying(without_effect(situation))):
        log.warning(line)
    return normal_form(situation)


def situation_of(config: Config, command: str = "train", records: Collection[str] | None = None) -> Situation:
    """What a command will do with its settings, which have been checked."""
    subset, draws = config.subset, redraws(config)
    chosen = command in ("train", "cache")
    needs = needs_of(subset.selector) if chosen and subset.file is None and not draws else ()
    reads_scores = "scores" in needs or (chosen and needs_scores(config))
    asked = list(records or ())
    if reads_scores and subset.scorer is not None:
        asked += [kind for kind in [declared(bound(subset.scorer)[0].name).needs] if kind != "nothing"]
    of_scorer = len(asked)
    if "features" in needs and subset.features is None:
        asked.append("embeddings")
    # Files are records of what the scorer needs, or else of features.
    observed = asked[max(of_scorer, 1) :] if chosen and config.record.files else asked
    of_names = [one.name for one in requested_teachers(config) if one.checkpoint is None and not has_weights(one.name)]
    return Situation(
        config,
        command,
        _trainings(config, command, observed, of_names),
        reads_scores=reads_scores,
        reads_features="features" in needs,
        draws_each_epoch=draws,
        asks_for_records=bool(asked),
        records=frozenset(observed),
        weightless=tuple(of_names),
        loss_reads=frozenset(_read_by(config)),
        alpha=_constant(config.distill.alpha),
        searches=alpha_policies.search(config.distill.alpha) is not None,
    )


def has_momentum(settings: TrainConfig) -> bool:
    """Whether the optimizer of a training takes --train.momentum."""
    return bool(get_optimizer_info(parse_call(settings.opt).name).has_momentum)


def _trainings(
    config: Config, command: str, observed: Collection[str], weightless: Collection[str]
) -> tuple[Training, ...]:
    record, chosen = config.record, command in ("train", "cache")
    silent = command == "train" and _constant(config.distill.alpha) == 0
    of_teacher = "teacher" in observed or ("embeddings" in observed and record.embeddings is None)
    of_teacher |= "dynamics" in observed and record.source != "proxy"
    has_teacher = bool(config.teacher.models)
    of_proxies = bool({"gradients", "memorization"} & set(observed))
    of_proxies |= "dynamics" in observed and record.source != "teacher"
    of_proxies |= "embeddings" in observed and record.embeddings is None and not has_teacher
    found = []
    if chosen:
        found.append(_training("train", config.train))
    if weightless and not config.teacher.pretrained and (of_teacher or (chosen and not silent)):
        found.append(_training("teacher.train", teacher_training(config), config.teacher.train))
    if of_proxies:
        found.append(_training("record.train", proxy_training(config), record.train))
    return tuple(found)


def _training(group: str, settings: TrainConfig, given: Any = None) -> Training:
    own = set() if given is None else {one.name for one in fields(given) if getattr(given, one.name) is not None}
    own |= {"steps"} if "epochs" in own else set()
    own |= set() if given is None else set(_NOT_INHERITED)
    return Training(group, settings, frozenset(own), has_momentum(settings))


def _read_by(config: Config) -> set[str]:
    """Settings of the run that a part of the loss takes, since it does not say them itself."""
    found = set()
    for term in parse(config.distill.loss):
        parameters = inspect.signature(registry.get("losses", term.name)).parameters
        found |= {name for name in ("temperature", "layers") if name in parameters and name not in term.params}
    return found


def _constant(alpha: float | str) -> float | None:
    """α where it is one number for all subsets and all of the training; else None."""
    if alpha_policies.search(alpha) is not None:
        return None
    policy = alpha_policies.parse(alpha)
    if policy.schedules or policy.policy.function is not alpha_policies.constant:
        return None
    return policy.at(1.0)
