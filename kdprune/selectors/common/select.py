"""From a data set, a keep fraction and a selector's name to a subset; quotas of classes are applied here, once.

Shapes: N samples of the unpruned training set, M candidates, C classes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kdprune import registry
from kdprune.calls import Call, bind
from kdprune.data.scores import contents_hash
from kdprune.data.subset import Subset
from kdprune.messages import about, counted, listed
from kdprune.selectors.common.arguments import check_number
from kdprune.selectors.common.pool import MEAN_PROBABILITY, Pool, Selector, mistake
from kdprune.selectors.common.quotas import by_class, floors, lifted, quotas, sizes_of
from kdprune.selectors.common.samples import Samples, check_known, difficulty, left_out

log = logging.getLogger("kdprune")

TIES = "seeded"  # how samples of equal scores are ordered: by a hash of (seed, sample id)


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
    is_left_out = left_out(samples, without_classes)
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
    check_known(samples, needs, is_left_out)
    del is_left_out
    count = max(1, round(keep_fraction * len(samples.labels)))
    if count > len(candidates) and keep_fraction < 1:
        log.warning(
            "--subset.keep_fraction: %g given is %d of %s, and %d may be kept: all of these are",
            *(keep_fraction, count, counted(len(samples.labels), "sample"), len(candidates)),
        )
    count = min(count, len(candidates))
    scores = difficulty(samples) if "scores" in needs else samples.scores
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
        hashed = contents_hash(samples.scores, samples.labels, samples.extra)
        details |= {"scorer": samples.scorer, "hard": samples.hard, "scores_hash": hashed, "ties": TIES}
        # Scores of one name differ by whose training they are of, and by what it was looked at through.
        details |= {
            name: samples.origin[name] for name in ("kind", "view", "epochs", "model") if name in samples.origin
        }
    if "features" in needs:
        details["features"] = samples.record
    return details


def _class_floor(given: float) -> float:
    """A whole number of samples, or a share."""
    check_number("--subset.class_floor", given, 0, np.inf, "[)")
    if given >= 1 and given != int(given):
        raise ValueError(
            f"--subset.class_floor: {given:g} given, allowed is a whole number of samples, or a share in (0, 1) of "
            "what uniform pruning would leave of a class"
        )
    return int(given) if given >= 1 or not given else given


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
            f"--subset.class_floor: {floor} given, and class {name!r} has "
            f"{counted(int(sizes.min()), 'sample')} that may be kept"
        )
    if floor * len(floored) > pool.count:
        raise ValueError(
            f"--subset.class_floor: {floor} given for {counted(len(floored), 'class')}, and "
            f"{counted(pool.count, 'sample')} to be kept: allowed is at most {pool.count // len(floored)}"
        )


def warn_of_lost_classes(labels: np.ndarray, ids: np.ndarray, without_classes: Sequence[int] = ()) -> None:
    """Warn when a class of the full set has no sample left; only say so where that was asked for."""
    if len(without_classes):
        log.info(
            "the subset keeps no sample of %s (%s), as --subset.without_classes asks",
            counted(len(without_classes), "class"), listed(without_classes),
        )  # fmt: skip
    lost = np.setdiff1d(np.flatnonzero(sizes_of(labels)), np.flatnonzero(sizes_of(labels[ids])))
    lost = np.setdiff1d(lost, without_classes)
    if len(lost):
        log.warning(
            "the subset of %s keeps no sample of %s (%s): keep more, or use --subset.balanced true",
            counted(len(ids), "sample"), counted(len(lost), "class"), listed(lost),
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
