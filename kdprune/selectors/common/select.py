"""From a data set, a keep fraction and a selector's name to a subset; quotas of classes are applied here, once.

Shapes: N samples of the unpruned training set, M candidates, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from kdprune import registry
from kdprune.calls import bind
from kdprune.data.quotas import largest_remainder
from kdprune.data.subset import Subset
from kdprune.messages import about, listed
from kdprune.selectors.common.pool import Pool, Selector, mistake
from kdprune.selectors.common.quotas import by_class, lifted

log = logging.getLogger("kdprune")

_NONE = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Samples:
    """The unpruned training set, as far as a choice depends on it.

    Attributes:
        labels: class of every sample, int64 N, -1 where there is none.
        fingerprint: of the data set.
        classes: their names.
        dropped: ids of unreadable images, which are not kept and are recorded in the subset.
        excluded: other samples that are not kept, such as those for validation: their ids, or a mask, bool N.
        scores: float N, for selectors that need them.
        features: float N×D, likewise.
    """

    labels: np.ndarray
    fingerprint: str
    classes: Sequence[str] = ()
    dropped: np.ndarray = field(default_factory=_NONE.copy)
    excluded: np.ndarray = field(default_factory=_NONE.copy)
    scores: np.ndarray | None = None
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: {labels.dtype} of shape {labels.shape} given, allowed are whole numbers, N ≥ 1")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    @property
    def labelled(self) -> bool:
        return bool((self.labels >= 0).all())


def select(
    samples: Samples,
    keep_fraction: float,
    selector: str = "random",
    *,
    balanced: bool = False,
    class_floor: int = 0,
    without_classes: Sequence[int] = (),
    seed: int = 0,
) -> Subset:
    """Choose a subset of round(keep_fraction · N) samples, at least one and at most what may be kept.

    keep_fraction counts all N samples, whatever is excluded: kept / all means the same in every run.

    Args:
        samples: to choose from.
        keep_fraction: kept / all, in (0, 1].
        selector: registered name, or name and arguments, such as `window(500)`.
        balanced: exact share for every class, by largest remainder.
        class_floor: least number of kept samples for every class.
        without_classes: classes of which no sample is kept.
        seed: the same seed gives the same subset everywhere.

    Raises:
        ValueError: keep_fraction outside (0, 1]; an unknown selector, or one that lacks what it needs; an option that
            needs labels where there are none; a floor that cannot be met; nothing is left.
    """
    if not 0 < keep_fraction <= 1:
        raise ValueError(f"--subset.keep_fraction: {keep_fraction} given, allowed is (0, 1]")
    for option, given in (("balanced", balanced), ("class_floor", class_floor), ("without_classes", without_classes)):
        if given and not samples.labelled:
            raise ValueError(f"--subset.{option}: the data set has samples without a label")
    name, function = _selector(selector, samples)
    candidates = np.flatnonzero(~_left_out(samples, without_classes))
    if not len(candidates):
        why = f"classes {listed(without_classes)} are left out" if len(without_classes) else "all are excluded"
        raise ValueError(f"--subset.without_classes: {why}, so that no sample is left")
    count = max(1, round(keep_fraction * len(samples.labels)))
    if count > len(candidates) and keep_fraction < 1:
        log.warning(
            "--subset.keep_fraction: %g given is %d of %d samples, and %d may be kept: all of these are",
            *(keep_fraction, count, len(samples.labels), len(candidates)),
        )
    count = min(count, len(candidates))
    pool = Pool(candidates, samples.labels, samples.classes, count, seed, samples.scores, samples.features)
    if class_floor:
        _check_floor(class_floor, pool, without_classes)
    with about("--subset.selector"):
        ids = choose(function, pool, balanced, class_floor, name)
    warn_of_lost_classes(samples.labels, ids, without_classes)
    chosen: dict[str, Any] = {
        "selector": selector, "keep_fraction": keep_fraction, "balanced": balanced, "seed": seed
    }  # fmt: skip
    optional = {"class_floor": class_floor, "without_classes": list(without_classes)}
    chosen |= {option: value for option, value in optional.items() if value}
    return Subset(ids, len(samples.labels), samples.fingerprint, chosen, tuple(int(i) for i in samples.dropped))


def choose(
    selector: Selector, pool: Pool, balanced: bool = False, class_floor: int = 0, name: str = "selector"
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
    if balanced:
        quotas = largest_remainder(np.array([len(group) for group in groups]), pool.count)
    else:
        quotas = np.bincount(pool.labels[ids], minlength=classes[-1] + 1)[classes]
        if quotas.min() >= class_floor:
            return ids
    kept = np.zeros(len(pool.labels), dtype=bool)
    for group, quota in zip(groups, lifted(quotas, class_floor), strict=True):
        if quota:
            kept[_checked(selector, replace(pool, candidates=group, count=int(quota)), name)] = True
    return np.flatnonzero(kept)


def _checked(selector: Selector, pool: Pool, name: str) -> np.ndarray:
    ids = selector(pool)
    if wrong := mistake(ids, pool):
        raise ValueError(f"selector {name} breaks its contract: {wrong}")
    return ids


def _selector(text: str, samples: Samples) -> tuple[str, Selector]:
    """A selector's name, and the function with its arguments."""
    call = registry.read_call("selectors", text, "--subset.selector")
    function = registry.get("selectors", call.name)
    has = {
        "labels": samples.labelled, "scores": samples.scores is not None, "features": samples.features is not None,
    }  # fmt: skip
    with about("--subset.selector"):
        arguments = bind(call, function, "selector", supplied=1)
        if lacking := [need for need in getattr(function, "needs", ()) if not has[need]]:
            raise ValueError(f"{call.name} needs {', '.join(lacking)} of every sample, and there are none")
    return call.name, partial(function, **arguments)


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


def _check_floor(floor: int, pool: Pool, without_classes: Sequence[int]) -> None:
    """Refuse a floor that some class is too small for, or that all classes together are."""
    floored = np.setdiff1d(np.flatnonzero(np.bincount(pool.labels)), without_classes)
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
    # Class -1, of samples without a label, is counted in front and cut off.
    before = np.bincount(labels + 1)[1:]
    after = np.bincount(labels[ids] + 1, minlength=len(before) + 1)[1:]
    lost = np.setdiff1d(np.flatnonzero((before > 0) & (after == 0)), without_classes)
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
