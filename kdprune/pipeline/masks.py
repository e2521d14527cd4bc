"""The mask of a run: given, made before the first step and found again, or decided on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from kdprune.artefact import Key
from kdprune.config import Config, StudentConfig
from kdprune.data.counter import key
from kdprune.data.place import Place
from kdprune.data.reader import plain_batches
from kdprune.messages import about, listed
from kdprune.models.inputs import Inputs
from kdprune.models.mask import Mask, packed, unpacked
from kdprune.models.mask_file import load_mask, save_mask
from kdprune.models.prunable import GROUP, Prunable, prunable, weights_of
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.job import Job, make_student
from kdprune.pipeline.keys import network_key
from kdprune.pipeline.obtain_mask import obtain_mask
from kdprune.pruners.common import when
from kdprune.pruners.common.keep import Kept
from kdprune.pruners.common.network import Network, Parts
from kdprune.pruners.common.pattern import unfit
from kdprune.pruners.common.prune import prune
from kdprune.pruners.common.pruner import bound
from kdprune.pruners.common.samples import PART, balanced_parts
from kdprune.pruners.common.sanity import inverted, shuffled
from kdprune.training.sparse import Sparse

log = logging.getLogger("kdprune")

VERSION = 1
"""Of the pruners. To be raised with a change after which the same settings give another mask."""


def is_sparse(config: Config) -> bool:
    """Whether a run's student ends with pruned weights."""
    return config.student.mask is not None or config.student.sparsity > 0


def check_mask(job: Job) -> Mask | None:
    """Refuse a mask or a way to one that cannot be, before any work; gives the mask that was handed over.

    Raises:
        ValueError: a mask of another model; samples without labels; a moment after the end; new initial weights of a
            student that has a past.
    """
    settings, student = job.config.student, job.student
    if not is_sparse(job.config):
        return None
    if settings.mask_check == "reinit" and (settings.pretrained or settings.checkpoint or student.structure):
        raise ValueError(
            "--student.mask_check: reinit given, and the student's first weights do not follow from a seed"
        )
    if settings.mask is not None:
        with about("--student.mask"):
            mask = load_mask(settings.mask)
            mask.check_fits(student.model, settings.mask, student.name)
        return mask
    by = bound(settings.pruner)
    with about("--student.model"):
        names = prunable(student.model, settings.prune_exclude).names
    if settings.pattern is not None:
        _check_pattern(settings, weights_of(student.model, names))
    if by.says.labels and not job.labelled:
        raise ValueError(f"--student.pruner: {by.written} needs labels, and {job.config.data.dataset} has none")
    moment = when.parse(settings.prune_at)
    if moment is None:
        return None
    if settings.mask_check == "reinit":
        raise ValueError("--student.mask_check: reinit given, which needs --student.prune_at init, or --student.mask")
    if settings.mask_check is not None and moment.begin is not None:
        raise ValueError(f"--student.mask_check: {settings.mask_check} given, and {when.OPTION} prunes many times")
    step = moment.in_steps(job.budget.epoch).step
    if step is not None and step > job.budget.steps:
        raise ValueError(
            f"{when.OPTION}: {settings.prune_at} given, and the training has {job.budget.steps} steps, of which "
            f"{job.budget.epoch:g} are an epoch"
        )
    return None


def _check_pattern(settings: StudentConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse layers that cannot hold a pattern, and a check that would break it."""
    given = f"--student.pattern: {settings.pattern} given, and"
    if found := unfit(weights):
        raise ValueError(
            f"{given} the input dimension of {listed(found)} is no multiple of {GROUP}: --student.prune_exclude unfit "
            "leaves such layers whole"
        )
    if settings.mask_check == "shuffle":
        raise ValueError(f"{given} --student.mask_check shuffle would break it; --student.pruner random is such a mask")


def with_mask(job: Job) -> Job:
    """A job that knows what its student keeps, if that is settled before the first step.

    Raises:
        ValueError: see `check_mask`; a layer that is left without weights.
    """
    settings = job.config.student
    mask = check_mask(job)
    if mask is None:
        if settings.sparsity == 0 or when.parse(settings.prune_at) is not None:
            return job
        mask = _made(job)
    mask = _checked(mask, job.config)
    _refuse_empty(mask, job.config)
    log.info("%s: weight pruning: %s", job.student.name, mask.say())
    return replace(job, mask=mask)


def make_sparse(job: Job, average: nn.Module | None) -> Sparse | None:
    """What keeps a student sparse in its training; None for a dense one.

    Args:
        average: the student's moving average.
    """
    settings = job.config.student
    if job.mask is not None:
        return Sparse(job.student.model, job.mask.kept, average=average)
    if not is_sparse(job.config):
        return None
    parsed = when.parse(settings.prune_at)
    assert parsed is not None
    moment = parsed.in_steps(job.budget.epoch)

    def due(step: int, done: bool) -> float | None:
        share = moment.share(step, done)
        return None if share is None else share * settings.sparsity

    def decide(sparsity: float, alive: Any) -> Kept:
        found: list[Any] = [None]
        if job.session.accelerator.is_main_process:  # others might round differently
            found = [{name: packed(one) for name, one in _pruned(job, job.student, sparsity, alive).items()}]
        broadcast_object_list(found)
        weights = weights_of(job.student.model, found[0])
        mask = _mask(job, {name: unpacked(found[0][name], tuple(weight.shape)) for name, weight in weights.items()})
        mask = _checked(mask, job.config)
        _refuse_empty(mask, job.config)
        log.info("%s: weight pruning: %s", job.student.name, mask.say())
        return mask.kept

    return Sparse(job.student.model, None, due, decide, average)


def mask_key(job: Job) -> Key | None:
    """What a run's result depends on: the bits of its mask, or how they come about on the way."""
    settings = job.config.student
    if not is_sparse(job.config):
        return None
    first_weights = settings.mask_check if settings.mask_check == "reinit" else None
    if job.mask is not None:
        return {"mask": job.mask.hash, "check": first_weights}
    return {**_how(job.config), "at": settings.prune_at, "check": settings.mask_check}


def final_mask(job: Job, sparse: Sparse) -> Mask:
    """The mask with which a training ended."""
    if job.mask is not None:
        return job.mask
    assert sparse.kept is not None
    mask = _mask(job, dict(sparse.kept))
    return replace(mask, made={**mask.made, "check": job.config.student.mask_check})


def _made(job: Job) -> Mask:
    """The mask of a student's first weights: found if it was made before."""
    config, accelerator, student = job.config, job.session.accelerator, job.student
    if config.student.mask_check == "reinit":  # the mask is that of the weights which are then replaced
        original = deepcopy(config)
        original.student.mask_check = None
        student = make_student(original, job.session)
    data = {"train": job.session.data.fingerprint, "subset": job.subset.hash, "seed": config.seed_of("data")}
    by = bound(config.student.pruner)
    contents: Key = {
        "version": VERSION, **_how(config), "student": network_key(student), "data": data if by.says.labels else None,
    }  # fmt: skip

    def make(folder: Path) -> list[str]:
        mask = _mask(job, _pruned(job, student, config.student.sparsity))
        return save_mask(folder, replace(mask, made={**mask.made, "weights": contents["student"]["weights"]}))

    return load_mask(obtain_mask(config, accelerator, contents, make))


def _pruned(job: Job, student: BuiltModel, sparsity: float, alive: Kept | None = None) -> Kept:
    """Prune a student as it stands."""
    config, accelerator, spec = job.config, job.session.accelerator, student.spec
    settings, by, seed = config.student, bound(config.student.pruner), config.seed_of("weights")
    inputs = Inputs(spec, accelerator.device)
    batches: dict[int, list[tuple[Tensor, Tensor]]] = {}  # by how many a class; as bytes, since rounds ask again

    def samples(per_class: int) -> Parts:
        if per_class not in batches:
            batches[per_class] = list(_samples(job, spec, per_class))
        return ((inputs(images), labels_N) for images, labels_N in batches[per_class])

    network = Network(
        student.model,
        _prunable(job).names,
        (spec.channels, *spec.size_HW),
        samples if by.says.labels else None,
        seed,
        accelerator.device,
    )
    inverted = settings.mask_check == "invert"
    scope = settings.pattern or settings.prune_scope
    return prune(network, by, sparsity, scope=scope, seed=seed, inverted=inverted, alive=alive)


def _samples(job: Job, spec: Any, per_class: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Kept samples, so many a class, without augmentation: uint8 images and labels."""
    data = job.session.data
    place = Place(job.session.accelerator.device, data.workers)  # all of them, whatever the number of processes
    for ids in balanced_parts(data.train.labels, job.subset.ids, per_class, job.config.seed_of("data")):
        for batch in plain_batches(data.train, ids, spec, place, PART):
            yield batch.images, batch.labels


def _checked(mask: Mask, config: Config) -> Mask:
    """A mask after its sanity check; one that a pruner was to invert is inverted already."""
    check, kept = config.student.mask_check, mask.kept
    if check == "shuffle":
        kept = shuffled(kept, key(config.seed_of("weights"), "shuffle"))
    elif check == "invert" and config.student.mask is not None:
        kept = inverted(kept)
    if check is None:
        return mask
    broken = ("pattern",) if check == "shuffle" else ()
    made = {name: value for name, value in mask.made.items() if name not in broken}
    return replace(mask, kept=kept, made={**made, "check": check})


def _refuse_empty(mask: Mask, config: Config) -> None:
    """Refuse layers without weights unless they are allowed, and a network without any."""
    option = "--student.mask" if config.student.mask else "--student.sparsity"
    given = config.student.mask or f"{config.student.sparsity:g}"
    if mask.count == 0:
        raise ValueError(f"{option}: {given} given, which leaves no weight at all")
    if mask.collapsed and not config.student.allow_collapse:
        raise ValueError(
            f"{option}: {given} given, which leaves no weight in {listed(mask.collapsed)}, so that nothing goes "
            "through (layer collapse): take a smaller sparsity, another --student.pruner, --student.prune_scope layer, "
            "or --student.allow_collapse true"
        )


def _how(config: Config) -> Key:
    """How a pruner's mask is made, beside what it is made from."""
    settings = config.student
    return {
        "pruner": bound(settings.pruner).written,
        "sparsity": settings.sparsity,
        "scope": settings.prune_scope,
        "exclude": sorted(settings.prune_exclude) or None,
        "seed": config.seed_of("weights"),
        "inverted": settings.mask_check == "invert",
        **({} if settings.pattern is None else {"pattern": settings.pattern}),
    }


def _mask(job: Job, kept: Kept) -> Mask:
    """Kept weights, with what is known of how they came about."""
    config, excluded = job.config, weights_of(job.student.model, _prunable(job).excluded)
    made = {
        **_how(config),
        "at": config.student.prune_at,
        "model": job.student.name,
        "data": job.session.data.fingerprint,
        "subset": job.subset.hash,
    }
    return Mask(kept, {name: tuple(weight.shape) for name, weight in excluded.items()}, made)


def _prunable(job: Job) -> Prunable:
    return prunable(job.student.model, job.config.student.prune_exclude)
