"""Teachers and their targets, for a training loop of one's own.

Shapes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdprune.api.surroundings import restored_surroundings
from kdprune.api.views import Views
from kdprune.data.reader import Batch, plain_batches
from kdprune.models.build import build_teacher, resolve_teacher
from kdprune.models.own import of_module
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.passes.evaluation import Evaluation
from kdprune.runs.accelerator import DTYPES, resolve_precision
from kdprune.teachers import teacher as frozen
from kdprune.teachers.cache import TargetCache
from kdprune.teachers.entries import make_entries
from kdprune.teachers.key import targets_key
from kdprune.teachers.targets import CachedTargets, OnlineTargets


class Teacher(frozen.Teacher):
    """A frozen teacher: in evaluation mode for ever, without gradients, BatchNorm folded, measured on held-out data.

    Args:
        source: a run directory, `RUN@EPOCH`, a file `….safetensors` of a run; a timm name, for its pretrained weights
            or those of a checkpoint; or a module of your own, from images normalised by the data's mean and std to
            logits N×C, which is copied and left as it is.
        views: of the data that it will teach on.
        checkpoint: a weights file for a timm name.
        precision: "auto" (bfloat16 where the hardware multiplies in it), "no", "bf16" or "fp16".
        engine: "frozen", or "plain": no layer is changed.
        compile: with torch.compile.

    Attributes:
        test_top1: accuracy on held-out data, in [0, 1]; None where there is none.
        spec: its input: channels, size, mean, std.
        parameters, weights_hash: how many, and their SHA-256.
        engine: what runs it; `engine.network` is the module, `engine.route` how the logits are computed.

    Raises:
        ValueError: nothing there, no weights, or another class count than the data's.

    Example:
        >>> import kdprune, torch
        >>> views = kdprune.Views("digits")
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> teacher = kdprune.Teacher(net, views)
        >>> teacher(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape, teacher.test_top1 > 0.9
        (torch.Size([2, 10]), False)
    """

    def __init__(
        self,
        source: str | Path | nn.Module,
        views: Views,
        *,
        checkpoint: str | Path | None = None,
        precision: str = "auto",
        engine: str = "frozen",
        compile: bool = False,
    ) -> None:
        with restored_surroundings():
            built = _built(source, views, checkpoint)
            train = views.data.train
            example = next(plain_batches(train, train.readable[:64], built.spec, views.place))
            made = frozen.make_teacher(
                built,
                type(source).__name__ if isinstance(source, nn.Module) else str(source),
                example.images,
                views.device,
                DTYPES[resolve_precision(precision)],
                fold=engine == "frozen",
                compile=compile,
            )
            made.test_top1 = _measured(made, views)
        super().__init__(**vars(made))

    @property
    def spec(self) -> InputSpec:
        return self.built.spec


def _built(source: str | Path | nn.Module, views: Views, checkpoint: str | Path | None) -> BuiltModel:
    data = views.data
    if isinstance(source, nn.Module):
        return of_module(source, "teacher", data.num_classes, views.spec, data.classes)
    return build_teacher(
        str(source),
        data.num_classes,
        channels=data.channels,
        image_size=views.spec.size,
        mean=data.mean,
        std=data.std,
        checkpoint=checkpoint,
        pretrained=checkpoint is None and resolve_teacher(str(source)) is None,
        classes=data.classes,
    )


def _measured(teacher: frozen.Teacher, views: Views) -> float | None:
    """Top-1 on held-out data; warns of one that guesses."""
    test = views.data.test
    if test is None:
        return None
    sums = Evaluation(views.num_classes, views.device)
    for batch in plain_batches(test, test.readable, teacher.built.spec, views.place):
        sums.add(teacher(batch.images), batch.labels)
    top1: float = sums.result()["top1"]
    frozen.warn_if_near_chance(teacher.built.name, top1, views.num_classes)
    return top1


class Targets:
    """What one or several teachers say of a batch of views: computed each time, or kept and met again.

    Args:
        teachers: one or several, which are averaged as probabilities at T.
        views: that batches will come from.
        temperature: T at which the targets will be softened: the average of several, and what `top_k` rebuilds, are
            right at this one.
        cache: a folder; what is there is read, what is missing is computed and kept. Runs and loops with the same
            teacher, data and views share it, whatever their subsets.
        top_k: keep the k largest logits and what rebuilds the others' mass, instead of all in float16.
        weights: of each teacher in the average (default: equal).

    Attributes:
        forward_samples: how many samples went through a teacher so far.

    Raises:
        ValueError: no teacher, `top_k` without a cache or out of range, a folder that holds other targets.
        OSError: the disk is full.

    Example:
        >>> import kdprune, torch
        >>> views = kdprune.Views("digits")
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> targets = kdprune.Targets(kdprune.Teacher(net, views), views, cache="targets")
        >>> for batch in views.batches(128, epochs=4, views=2):  # epochs 2 and 3 read what 0 and 1 wrote
        ...     logits = targets(batch)
        >>> logits.shape, targets.forward_samples
        (torch.Size([128, 10]), 2694)
    """

    def __init__(
        self,
        teachers: Teacher | Sequence[Teacher],
        views: Views,
        temperature: float = 4.0,
        cache: str | Path | None = None,
        top_k: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        several = [teachers] if isinstance(teachers, Teacher) else list(teachers)
        if not several:
            raise ValueError("teachers: none given, allowed are one or several")
        if weights is not None and len(weights) != len(several):
            raise ValueError(f"weights: {len(weights)} given for {len(several)} teachers, allowed is one for each")
        self.temperature = temperature
        if cache is None:
            if top_k is not None:
                raise ValueError(f"top_k: {top_k} given without a cache, which alone keeps anything")
            self._targets = OnlineTargets(several, temperature, weights)
        else:
            caches = _caches(several, views, Path(cache), top_k)
            self._targets = CachedTargets(several, caches, temperature, weights)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Logits N×C, float32, on the device of the batch, without gradient."""
        return self._targets(batch)

    @property
    def forward_samples(self) -> int:
        return self._targets.forward_samples


def _caches(teachers: Sequence[Teacher], views: Views, folder: Path, top_k: int | None) -> list[TargetCache]:
    data = views.data
    entries, total = make_entries(data.num_classes, top_k), len(data.train)
    keys = [targets_key(t, data.fingerprint, total, views.settings, views.subset.hash, entries) for t in teachers]
    folders = [folder] if len(keys) == 1 else [folder / f"teacher_{index}" for index in range(len(keys))]
    return [TargetCache(place, key, total, entries) for place, key in zip(folders, keys, strict=True)]
