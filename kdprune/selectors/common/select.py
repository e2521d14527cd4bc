"""From a data set, a keep fraction and a selector's name to a subset; quotas of classes are applied here, once.

Shapes: N samples of the unpruned training set, M candidates, C classes.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.data.scores import Hard, Scores
from kdprune.data.subset import Subset
from kdprune.messages import about, listed, shown
from kdprune.selectors.common.arguments import check_number
from kdprune.selectors.common.pool import MEAN_PROBABILITY, Pool, Selector, mistake
from kdprune.selectors.common.quotas import by_class, floors, lifted, quotas, sizes_of

log = logging.getLogger("kdprune")

_NONE = np.array([], dtype=np.int64)
TIES = "seeded"  # how samples of equal scores are ordered: by a hash of (seed, sample id)


@dataclass(frozen=True)
class Samples:
    """The unpruned training set, as far as a choice depends on it.

    Attributes:
        labels: class of every sample, int64 N, -1 where there is none.
        fingerprint: of the data set.
        classes: their names.
        dropped: ids of unreadable images, which are not kept and are recorded in the subset.
        excluded: other samples that are not kept, such as those for validation: their ids, or a mask, bool N.
        scores: as the scorer counts, float N, for selectors that need them.
        hard: whether a high or a low score means a hard sample; selectors are shown high ones.
        scorer: what the scores are, as it was written.
        extra: further columns of the scorer, float N each.
        features: float N×D, for selectors that need them.
        record: what the features are: the hash of the key of their record.
        origin: what was observed for the scores, JSON values.
    """

    labels: np.ndarray
    fingerprint: str
    classes: Sequence[str] = ()
    dropped: np.ndarray = field(default_factory=_NONE.copy)
    excluded: np.ndarray = field(default_factory=_NONE.copy)
    scores: np.ndarray | None = None
    features: np.ndarray | None = None
    hard: Hard = "high"
    scorer: str = "given"
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    record: str = "given"
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: {labels.dtype} of shape {labels.shape} given, allowed are whole numbers, N ≥ 1")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))
        if self.scores is not None:
            object.__setattr__(self, "scores", _column("scores", self.scores, len(labels)))
        extra = {name: _column(name, column, len(labels)) for name, column in self.extra.items()}
        object.__setattr__(self, "extra", extra)

    @property
    def labelled(self) -> bool:
        return bool((self.labels >= 0).all())


def samples_of(
    scores: Scores, dropped: np.ndarray = _NONE, excluded: np.ndarray = _NONE, hard: Hard | None = None
) -> Samples:
    """The training set that a score file speaks of; samples that were not observed are excluded.

    Args:
        scores: of all samples.
        dropped: ids of unreadable images, if they are known.
        excluded: ids of other samples that are not kept.
        hard: which scores are hard, against what the file says.
    """
    barred = np.isnan(scores.values)
    labels = scores.labels
    if missing := np.count_nonzero(barred):
        log.warning(
            "%s: %d of %d samples were not observed and are not kept (%s)",
            scores.scorer, missing, scores.total, listed(np.flatnonzero(barred)),
        )  # fmt: skip
    barred[excluded] = True
    return Samples(
        labels, scores.fingerprint, scores.classes, dropped, barred, scores.values, None, hard or scores.hard,
        scores.scorer, scores.extra, origin=scores.origin,
    )  # fmt: skip


def select(
    samples: Samples,
    keep_fraction: float,
    selector: str = "random",
    *,
    balanced: bool = False,
    class_floor: float = 0,
    without_classes: Sequence[int] = (),
    seed: int = 0,
) -> Subset:
    """Choose a subset of round(keep_fraction · N) samples, at least one and at most what may be kept.

    keep_fraction counts all N samples, whatever is excluded: kept / all means the same in every run.

    Args:
        samples: to choose from.
        keep_fraction: kept / all, in (0, 1].
        selector: registered name, or name and arguments, such as `window(start=0.5)`.
        balanced: exact share for every class, by largest remainder.
        class_floor: least number of kept samples for every class; or a share in (0, 1) of those that uniform pruning
            would leave of the class.
        without_classes: classes of which no sample is kept.
        seed: the same seed gives the same subset everywhere.

    Raises:
        ValueError: keep_fraction outside (0, 1]; an unknown selector, or one that lacks what it needs; an option that
            needs labels where there are none; a floor that cannot be met; a candidate without a score; nothing is left.
    """
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"--subset.keep_fraction: {keep_fraction} given, allowed is (0, 1]")
    class_floor = _class_floor(class_floor)
    is_left_out = _left_out(samples, without_classes)
    labelled = samples.labelled or bool((samples.labels >= 0)[~is_left_out].all())
    for option, given in (("balanced", balanced), ("class_floor", class_floor), ("without_classes", without_classes)):
        if given and not labelled:
            raise ValueError(f"--subset.{option}: the data set has samples without a label")
    call, function, arguments = _selector(selector, samples, labelled)
    needs = getattr(function, "needs", ())
    candidates = np.flatnonzero(~is_left_out)
    if not len(candidates):
        why = f"classes {listed(without_classes)} are left out" if len(without_classes) else "all are excluded"
        raise ValueError(f"--subset.without_classes: {why}, so that no sample is left")
    _check_known(samples, needs, is_left_out)
    del is_left_out
    count = max(1, round(keep_fraction * len(samples.labels)))
    if count > len(candidates) and keep_fraction < 1:
        log.warning(
            "--subset.keep_fraction: %g given is %d of %d samples, and %d may be kept: all of these are",
            *(keep_fraction, count, len(samples.labels), len(candidates)),
        )
    count = min(count, len(candidates))
    scores = _difficulty(samples) if "scores" in needs else samples.scores
    pool = Pool(candidates, samples.labels, samples.classes, count, seed, scores, samples.features, samples.extra)
    if class_floor:
        _check_floor(class_floor, pool, without_classes)
    with about("--subset.selector"):
        if resolve := getattr(function, "resolve", None):
            arguments = resolve(pool, **arguments)
        ids = choose(partial(function, **arguments), pool, balanced, class_floor, call.name)
    warn_of_lost_classes(samples.labels, ids, without_classes)
    chosen: dict[str, Any] = {
        "selector": selector, "keep_fraction": keep_fraction, "balanced": balanced, "seed": seed
    }  # fmt: skip
    optional = {"class_floor": class_floor, "without_classes": list(without_classes)}
    chosen |= {option: value for option, value in optional.items() if value}
    chosen |= _details(call.name, function, arguments, samples)
    return Subset(ids, len(samples.labels), samples.fingerprint, chosen, tuple(int(i) for i in samples.dropped))


def choose(
    selector: Selector, pool: Pool, balanced: bool = False, class_floor: float = 0, name: str = "selector"
) -> np.ndarray:
    """The kept ids, ascending, with quotas of classes around a selector that knows nothing of them.

    `balanced` calls it once for each class. A floor that its own choice breaks does, too: the classes below it are
    lifted to it, and the others keep in proportion fewer than they had.
    """
    if not balanced:
        ids = _checked(selector, pool, name)
        if not class_floor:
            return ids
    classes, groups = by_class(pool.candidates, pool.labels)
    sizes = np.array([len(group) for group in groups])
    least = floors(class_floor, sizes, pool.count, pool.seed, classes)
    if balanced:
        shares = quotas(sizes, pool.count, pool.seed, classes)
    else:
        shares = np.bincount(pool.labels[ids], minlength=classes[-1] + 1)[classes]
        if (shares >= least).all():
            return ids
    kept = np.zeros(len(pool.labels), dtype=bool)
    for group, share in zip(groups, lifted(shares, least, pool.seed, classes), strict=True):
        if share:
            of_class = replace(pool, candidates=group.astype(np.int64), count=int(share))
            kept[_checked(selector, of_class, name)] = True
    return np.flatnonzero(kept)


def _checked(selector: Selector, pool: Pool, name: str) -> np.ndarray:
    ids = selector(pool)
    if wrong := mistake(ids, pool):
        raise ValueError(f"selector {name} breaks its contract: {wrong}")
    return ids


def _selector(text: str, samples: Samples, labelled: bool) -> tuple[Call, Selector, dict[str, Any]]:
    """A selector as it was written, its function, and its arguments."""
    call = registry.read_call("selectors", text, "--subset.selector")
    function = registry.get("selectors", call.name)
    has = {
        "labels": labelled, "scores": samples.scores is not None, "features": samples.features is not None,
        MEAN_PROBABILITY: MEAN_PROBABILITY in samples.extra,
    }  # fmt: skip
    with about("--subset.selector"):
        arguments = bind(call, function, "selector", supplied=1)
        if lacking := [need for need in getattr(function, "needs", ()) if not has[need]]:
            raise ValueError(f"{call.name} needs {', '.join(lacking)} of every sample, and there are none")
    return call, function, arguments


def _details(name: str, function: Selector, arguments: Mapping[str, Any], samples: Samples) -> dict[str, Any]:
    """What else a subset file records: all arguments of the selector, and the scores that it read."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    values = {p.name: p.default for p in parameters if p.default is not p.empty} | dict(arguments)
    details: dict[str, Any] = {}
    needs = getattr(function, "needs", ())
    if parameters:
        details["resolved"] = str(Call(name, (), {key: value for key, value in values.items() if value is not None}))
    if "scores" in needs:
        assert samples.scores is not None
        hashed = hashlib.sha256(samples.scores.astype("<f4", copy=False).data).hexdigest()
        details |= {"scorer": samples.scorer, "hard": samples.hard, "scores_hash": hashed, "ties": TIES}
        # Scores of one name differ by whose training they are of, and by what it was looked at through.
        details |= {
            name: samples.origin[name] for name in ("kind", "view", "epochs", "model") if name in samples.origin
        }
    if "features" in needs:
        details["features"] = samples.record
    return details


def _column(name: str, values: np.ndarray, total: int) -> np.ndarray:
    """A number for each sample, float32 N."""
    values = np.asarray(values)
    if values.shape != (total,) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}: {values.dtype} of shape {values.shape} given, allowed is a number for each of {total:,} samples"
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        return np.ascontiguousarray(values, dtype=np.float32)


def _difficulty(samples: Samples) -> np.ndarray | None:
    """The scores, turned so that higher is harder."""
    if samples.hard not in ("high", "low"):
        raise ValueError(f"hard: {shown(samples.hard)} given, allowed are high and low")
    return samples.scores if samples.hard == "high" or samples.scores is None else -samples.scores


def _check_known(samples: Samples, needs: Sequence[str], is_left_out: np.ndarray) -> None:
    """Refuse candidates whose score is not known."""
    for name, column in (("scores", samples.scores), *samples.extra.items()):
        if name not in needs or column is None:
            continue
        unknown = np.isnan(column)
        unknown[is_left_out] = False
        if unknown.any():
            ids = np.flatnonzero(unknown)
            raise ValueError(
                f"{name}: {len(ids):,} samples that may be kept have none (NaN): {listed(ids)}. Observe them, or "
                "exclude them"
            )


def _class_floor(given: float) -> float:
    """A whole number of samples, or a share."""
    check_number("--subset.class_floor", given, 0, np.inf, "[)")
    if given >= 1 and given != int(given):
        raise ValueError(
            f"--subset.class_floor: {given:g} given, allowed is a whole number of samples, or a share in (0, 1) of "
            "what uniform pruning would leave of a class"
        )
    return int(given) if given >= 1 or not given else given


def _left_out(samples: Samples, without_classes: Sequence[int]) -> np.ndarray:
    """Who must not be kept, bool N."""
    left_out = np.zeros(len(samples.labels), dtype=bool)
    for what in ("dropped", "excluded"):
        left_out |= _mask(what, np.asarray(getattr(samples, what)), len(left_out))
    if len(without_classes):
        is_without = np.zeros(max(samples.labels.max(), *without_classes) + 1, dtype=bool)
        is_without[list(without_classes)] = True
        left_out |= is_without[samples.labels]
    return left_out


def _mask(what: str, given: np.ndarray, total: int) -> np.ndarray:
    """Sample ids or a mask, as a mask."""
    if given.dtype == bool and given.shape == (total,):
        return given
    mask = np.zeros(total, dtype=bool)
    if given.size:
        are_ids = np.issubdtype(given.dtype, np.integer) and given.ndim == 1
        if not are_ids or given.min() < 0 or given.max() >= total:
            raise ValueError(f"{what}: allowed are sample ids from 0 to {total - 1}, or a mask of {total} samples")
        mask[given] = True
    return mask


def _check_floor(floor: float, pool: Pool, without_classes: Sequence[int]) -> None:
    """Refuse a floor that some class is too small for, or that all classes together are; a share always fits."""
    if floor < 1:
        return
    floored = np.setdiff1d(np.flatnonzero(sizes_of(pool.labels)), without_classes)
    sizes = np.bincount(pool.labels[pool.candidates], minlength=floored[-1] + 1)[floored]
    if floor > sizes.min():
        smallest = int(floored[sizes.argmin()])
        name = pool.classes[smallest] if smallest < len(pool.classes) else smallest
        raise ValueError(
            f"--subset.class_floor: {floor} given, and class {name!r} has {sizes.min()} samples that may be kept"
        )
    if floor * len(floored) > pool.count:
        raise ValueError(
            f"--subset.class_floor: {floor} given for {len(floored)} classes, and {pool.count} samples are kept: "
            f"allowed is at most {pool.count // len(floored)}"
        )


def warn_of_lost_classes(labels: np.ndarray, ids: np.ndarray, without_classes: Sequence[int] = ()) -> None:
    """Warn when a class of the full set has no sample left; only say so where that was asked for."""
    if len(without_classes):
        log.info(
            "the subset keeps no sample of %d classes (%s), as --subset.without_classes asks",
            len(without_classes), listed(without_classes),
        )  # fmt: skip
    lost = np.setdiff1d(np.flatnonzero(sizes_of(labels)), np.flatnonzero(sizes_of(labels[ids])))
    lost = np.setdiff1d(lost, without_classes)
    if len(lost):
        log.warning(
            "the subset of %d samples keeps no sample of %d classes (%s): keep more, or use --subset.balanced true",
            len(ids), len(lost), listed(lost),
        )  # fmt: skip


def needs_of(text: str) -> tuple[str, ...]:
    """What the selector that `text` names reads beside ids: of "labels", "scores" and "features".

    Raises:
        ValueError: an unknown selector or parameter.
    """
    call = registry.read_call("selectors", text, "--subset.selector")
    function = registry.get("selectors", call.name)
    with about("--subset.selector"):
        bind(call, function, "selector", supplied=1)
    return tuple(getattr(function, "needs", ()))
