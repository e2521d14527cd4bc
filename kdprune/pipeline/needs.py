"""What a run is made of that other runs may need, too, known by the settings that make it.

The artefacts themselves are known by their contents, which are not there before they are made. So equal settings are
taken for one need here; where two needs turn out to be one artefact, the second finds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdprune.checks import EMA
from kdprune.config import Config, SeedConfig, StudentConfig, TeacherTrainConfig, TrainConfig, relevant
from kdprune.config.effect import normal_form
from kdprune.pipeline.cache import cache
from kdprune.pipeline.effect import situation_of
from kdprune.pipeline.proxies import proxy_recipe
from kdprune.pipeline.record import trainings_of
from kdprune.pipeline.score import recorded_for, selects_by_observation
from kdprune.pipeline.session import open_session
from kdprune.pipeline.teachers import TEACHERS, teacher_trainings
from kdprune.pipeline.train import observed, train
from kdprune.runs.accelerator import make_accelerator

Kind = Literal["training", "observation", "targets"]


@dataclass(frozen=True)
class Need:
    """Something that is made before a run.

    Attributes:
        what: it is, for a person.
        id: equal for what equal settings make.
        config: what it is made with; that of a training is its recipe.
        folder: of a training's run, in the output.
        needs: what it is itself made of.
    """

    kind: Kind
    what: str
    id: str
    config: Config
    folder: str = ""
    needs: tuple[Need, ...] = ()


def needs_of_run(config: Config) -> list[Need]:
    """What a run with these settings is directly made of: teachers, scores, cached targets.

    Memorization's proxies see parts of the data, which are drawn when it is open: they are made with the scores.

    Args:
        config: which has been checked; of one that would be refused, nothing can be said.
    """
    return _needs(normal_form(situation_of(config)))


def _needs(config: Config) -> list[Need]:
    """Of settings without those that have no effect, as a run begins with them."""
    found = [_training(recipe, folder) for recipe, folder in teacher_trainings(config)]
    found += _observed(config)
    targets = _targets(config, tuple(found))
    return [*found, *([] if targets is None else [targets])]


def merged_targets(needs: Sequence[Need]) -> dict[str, Need]:
    """Cached targets of several teachers over the same views of the same samples as one need: one pass over the data.

    Args:
        needs: of the kind `targets`.

    Returns:
        for each by its id, the need that stands for it: itself or a merged one.
    """
    groups: dict[str, list[Need]] = {}
    for need in needs:
        teacher = need.config.teacher
        alone = teacher.checkpoints or teacher.cache
        groups.setdefault(need.id if alone else _pass_of(need), []).append(need)
    found: dict[str, Need] = {}
    for group in groups.values():
        whole = _merged(group)
        found |= {need.id: whole or need for need in group}
    return found


def make(need: Need) -> Path | None:
    """Make what is needed, or find it; the directory of a training's run."""
    config = need.config
    if need.kind == "targets":
        cache(config)
        return None
    session = open_session(config, make_accelerator(config.train.precision, [], config.output))
    if need.kind == "observation":
        observed(config, session)
        return None
    return train(config, session, Path(config.output) / need.folder).path


def _training(recipe: Config, folder: str) -> Need:
    what = f"{recipe.seeds.role} {recipe.student.model}, seed {recipe.seed}"
    train = recipe.train
    settings = {**relevant(recipe), "kept": [train.save_epochs, train.save_steps, train.record]}
    if recipe.subset.keep_fraction == 1 and not recipe.data.val_fraction and not recipe.teacher.models:
        del settings["seeds.subset"]  # it draws nothing
    what += _apart(recipe)
    return Need("training", what, _id("training", folder, settings), recipe, folder, tuple(_needs(recipe)))


def _observed(config: Config) -> list[Need]:
    """What a subset is selected by. Scores of training dynamics cost nothing, so the trainings stand for them."""
    if not selects_by_observation(config):
        return []
    kinds = recorded_for(config)
    trainings = [_training(*one) for kind in kinds for one in trainings_of(kind, config)]
    if not set(kinds) - {"dynamics"}:
        return trainings
    subset, teacher = config.subset, config.teacher
    made_of = {
        "trainings": [need.id for need in trainings],
        "subset": [subset.scorer, subset.scores, subset.features, "embeddings" in kinds],
        "record": asdict(config.record),
        "data": asdict(config.data),
        "seed": config.seed_of("subset"),
        "proxy": relevant(proxy_recipe(config, 0)) if {"gradients", "memorization"} & set(kinds) else None,
        "teacher": [teacher.models, teacher.checkpoints] if {"embeddings", "teacher"} & set(kinds) else None,
    }
    what = f"scores by {subset.scorer or subset.selector}{_apart(config)}"
    return [Need("observation", what, _id("observation", made_of), config, needs=tuple(trainings))]


def _targets(config: Config, before: tuple[Need, ...]) -> Need | None:
    """What teachers say of every view that the run's student meets, where that is stored."""
    teacher = config.teacher
    if teacher.targets != "cached" or not teacher.models or teacher.models == [EMA]:
        return None
    what = f"targets of {'+'.join(teacher.models)}, keep {config.subset.keep_fraction:g}, seed {config.seed}"
    what += _apart(config)
    made_of = [relevant(_seen(config)), teacher.cache, sorted(need.id for need in before)]
    return Need("targets", what, _id("targets", *made_of), config, needs=before)


def _apart(config: Config) -> str:
    return ", without the validation part" if config.data.val_fraction else ""


def _seen(config: Config) -> Config:
    """The settings by which views, samples and entries of cached targets are told apart; all else is as by default."""
    train = config.train
    return Config(
        output=config.output,
        data=config.data,
        subset=config.subset,
        record=config.record,
        seeds=SeedConfig(data=config.seed_of("data"), subset=config.seed_of("subset"), role=config.seeds.role),
        student=StudentConfig(model=config.student.model),
        teacher=replace(
            config.teacher, weights=None, temperatures=None, by_correctness=False, train=TeacherTrainConfig()
        ),
        train=TrainConfig(
            epochs=train.epochs, steps=train.steps, budget=train.budget, batch_size=train.batch_size,
            precision=train.precision, compile=train.compile,
        ),
    )  # fmt: skip


def _pass_of(need: Need) -> str:
    """Equal for targets that one pass over the data can fill."""
    seen = _seen(need.config)
    seen.teacher = replace(seen.teacher, models=[])
    return _id("pass", relevant(seen), [one.id for one in need.needs if one.folder != TEACHERS])


def _merged(group: Sequence[Need]) -> Need | None:
    """One need that makes all of a group; None where there is nothing to merge."""
    if len(group) == 1:
        return None
    models = list(dict.fromkeys(model for need in group for model in need.config.teacher.models))
    first = group[0].config
    teacher = replace(first.teacher, models=models, weights=None, temperatures=None, by_correctness=False)
    config = replace(first, teacher=teacher)
    need = _targets(config, tuple(_needs(replace(config, teacher=replace(teacher, targets="online")))))
    assert need is not None
    same = {one.id for one in need.needs} == {one.id for other in group for one in other.needs}
    return need if same else None  # else their trainings differ in more than the model


def _id(kind: str, *made_of: Any) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]}"
