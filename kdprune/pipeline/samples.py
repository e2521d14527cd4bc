"""Which samples a run keeps, and whether their labels are enough for what it is asked to do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from kdprune import alpha as alpha_policies
from kdprune.artefact import Artefact, Key, damage, key_hash, obtain
from kdprune.checks import LEARNED
from kdprune.config import Config
from kdprune.data.dataset import Data
from kdprune.data.subset import Subset, class_ids, load_subset
from kdprune.pipeline.dynamic import keep_fraction, redraws
from kdprune.pipeline.session import Session
from kdprune.runs.reading import SUBSET
from kdprune.selectors.common.samples import Samples, samples_of
from kdprune.selectors.common.select import needs_of, select

VERSION = 1
"""Of the selectors by features. To be raised with a change after which one keeps other samples."""
FOLDER = "subsets"


def choose_subset(config: Config, session: Session) -> Subset:
    """The samples that a run keeps: from a file, or selected. Never validation samples, never unreadable ones.

    Where each epoch is drawn anew, they are all that an epoch may hold.
    """
    data, settings, everything = session.data, config.subset, redraws(config)
    if settings.file:
        subset = load_subset(settings.file, data.fingerprint, len(data.train))
        if shared := len(np.intersect1d(subset.ids, data.validation)):
            raise ValueError(
                f"--subset.file: {settings.file} keeps {shared:,} samples that --data.val_fraction holds out for "
                "validation; leave one of the two out"
            )
        subset = _readable(subset, data, settings.file)
    else:
        choice = _Choice(
            1.0 if everything else settings.keep_fraction,
            "random" if everything else settings.selector,
            settings.balanced and not everything,
            0 if everything else settings.class_floor,
            tuple(class_ids(settings.without_classes, data.classes)),  # type: ignore[arg-type]
            config.seed_of("subset"),
        )
        subset = _selected(_samples(config, session), choice, Path(config.output) / FOLDER)
    check_labels(config, data, keep_fraction(config, subset))
    return subset


@dataclass(frozen=True)
class _Choice:
    """How a subset is selected; see `select`."""

    keep_fraction: float
    selector: str
    balanced: bool
    class_floor: float
    without_classes: tuple[int, ...]
    seed: int


def _selected(samples: Samples, choice: _Choice, folder: Path) -> Subset:
    """The chosen samples; a choice by features takes long, so it is kept in `folder` and found by all it depends on."""
    make = partial(select, samples, **vars(choice))
    if samples.features is None:
        return make()
    known = [samples.scores, *(samples.extra[name] for name in sorted(samples.extra))]
    key: Key = {
        "version": VERSION,
        "data": samples.fingerprint,
        "labels": array_hash(samples.labels),
        "left_out": [array_hash(samples.dropped), array_hash(samples.excluded)],
        "scores": [array_hash(column) for column in known if column is not None],
        "hard": samples.hard if samples.scores is not None else None,
        "features": samples.record,
        **vars(choice),
    }
    artefact = Artefact(folder / key_hash(key)[:16], "a subset", key)

    def write() -> list[str]:
        make().save(artefact.folder / SUBSET)
        return sorted(path.name for path in artefact.folder.glob("subset.*"))

    obtain(artefact, write)
    if found := damage(artefact.folder):
        raise ValueError(f"{'; '.join(found)}: remove {artefact.folder}, the subset is then selected again")
    return load_subset(artefact.folder, samples.fingerprint, len(samples.labels))


def array_hash(array: np.ndarray) -> str:
    """SHA-256 of numbers and their type, hex."""
    contents = np.ascontiguousarray(array)
    return hashlib.sha256(contents.dtype.str.encode() + contents.tobytes()).hexdigest()


def _samples(config: Config, session: Session) -> Samples:
    """What the subset is chosen from, with scores and features where they were recorded."""
    data, scores = session.data, session.scores
    samples = Samples(data.train.labels, data.fingerprint, data.classes, data.train.unreadable, data.validation)
    if not {"scores", "features"} & set(needs_of(config.subset.selector)):
        return samples
    if scores is not None:
        known = samples_of(scores)  # which says what was not observed, and leaves it out
        samples = replace(
            samples,
            excluded=np.union1d(data.validation, np.flatnonzero(known.excluded)),
            scores=scores.values,
            hard=config.subset.hard or scores.hard,
            scorer=scores.scorer,
            extra=scores.extra,
            origin=scores.origin,
        )
    features = session.features
    return (
        samples
        if features is None
        else replace(samples, features=features.rows("features")[:], record=features.key_hash)
    )


def _readable(subset: Subset, data: Data, file: str) -> Subset:
    """A subset without the images that cannot be read here; whoever wrote the file may have read them."""
    dropped = data.train.unreadable
    if not len(np.intersect1d(subset.ids, dropped)):
        return subset
    if not len(ids := np.setdiff1d(subset.ids, dropped)):
        raise ValueError(f"--subset.file: {file} keeps {len(subset.ids):,} images, and none of them can be read")
    return replace(subset, ids=ids, dropped=tuple(int(i) for i in dropped))


def check_labels(config: Config, data: Data, keep_fraction: float) -> None:
    """A transfer set without labels can only be distilled from, with α = 1.

    Raises:
        ValueError: the data has no labels, and a setting needs them.
    """
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
