"""Channel pruning: a student without some of its channels, smaller and dense, in timm's tensor names."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kdprune.files import check_writable
from kdprune.messages import listed, unknown
from kdprune.models.build import count_parameters
from kdprune.models.channels import Channels, Coupled, require_torch_pruning
from kdprune.models.hashing import weights_hash
from kdprune.models.locate import FINAL, resolve_teacher
from kdprune.models.mask_file import JSON as MASK
from kdprune.models.multiply_adds import multiply_adds
from kdprune.models.narrow import create_narrow, widths_of
from kdprune.models.removed import IN, Removed, silence, without
from kdprune.models.saved import load_model, save_model
from kdprune.models.spec import BuiltModel
from kdprune.models.weights import SUFFIXES
from kdprune.pipeline.channel_scores import IMPORTANCES, SCOPES, keep, scores_of

log = logging.getLogger("kdprune")

SMALLEST = 1e-6  # difference of logits in float64, over the largest, that is no rounding


@dataclass(frozen=True)
class Shrunk:
    """What was written.

    Attributes:
        path: the weights file.
        coupled: the channels that layers share, in the order of the network.
        left: of each of them, how many stay.
        parameters, multiply_adds, bytes: before and after; multiply-adds for one image.
    """

    path: Path
    coupled: Sequence[Coupled]
    left: Sequence[int]
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]
    bytes: tuple[int, int]


def shrink(
    run: str, output: Path, channels: float, importance: str = "magnitude", scope: str = "global", seed: int = 0
) -> Shrunk:
    """Remove channels of a student, and write what is left as `student.safetensors`.

    Before that, its outputs are compared with those of the whole network in which nothing reads the removed channels.

    Args:
        run: a run directory, RUN@EPOCH, or a file that `save_model` wrote.
        output: folder, made where it is not there.
        channels: that stay / all that can be removed, in (0, 1). Each layer keeps one at least.
        importance: magnitude, bn_scale or random.
        scope: whether the highest scores of the whole network stay ("global"), or those of each layer.
        seed: of random scores, and of the order of equal ones.

    Raises:
        ValueError: an option of another value, a package that is missing, no such run, a folder that is a run; a
            network that cannot be traced, or whose channels cannot be removed.
    """
    weights = _check(run, output, channels, importance, scope)
    built = load_model(weights)
    if (weights.parent / MASK).is_file():
        log.warning("%s: its student is sparse; zeros that stay are weights like any other in what is written", run)
    shape = (built.spec.channels, *built.spec.size_HW)
    graph = Channels(copy.deepcopy(built.model), shape)
    kept = keep(scores_of(graph, importance, seed), channels, scope, seed)
    removed, left = _removed(graph, kept)
    small = _without(built, removed)
    _compare(built, small, removed, shape)
    before, after = (multiply_adds(one.model, shape).dense for one in (built, small))
    parameters = count_parameters(built.model), count_parameters(small.model)
    small.info = {
        **built.info,
        "shrunk": {
            "channels": channels, "importance": importance, "scope": scope, "seed": seed,
            "source": weights_hash(built.model.state_dict()),
            "parameters": list(parameters), "multiply_adds": [before, after],
        },
    }  # fmt: skip
    path = output / FINAL
    save_model(path, small)
    return Shrunk(path, graph.coupled, left, parameters, (before, after), (_bytes(weights), _bytes(path)))


def _check(run: str, output: Path, channels: float, importance: str, scope: str) -> Path:
    """The file to read, once all that was asked for is possible."""
    if not 0 < channels < 1:
        raise ValueError(f"--channels: {channels} given, allowed is (0, 1): channels that stay / all")
    for option, given, allowed in (("importance", importance, IMPORTANCES), ("scope", scope, SCOPES)):
        if given not in allowed:
            raise ValueError(f"--{option}: {unknown(option, given, allowed)}")
    require_torch_pruning()
    if output.suffix in SUFFIXES:
        raise ValueError(f"--output: {output} given, allowed is a folder, in which {FINAL} is written")
    check_writable(output, "--output")
    weights = resolve_teacher(run)
    if weights is None:
        raise ValueError(f"no such run directory: {run}")
    if (output / "artefact.json").exists():
        raise ValueError(f"--output: {output} is the directory of a run; name another folder")
    if output.resolve() == weights.parent.resolve():
        raise ValueError(f"--output: {output} holds what is to be shrunk; name another folder")
    return weights


def _removed(graph: Channels, kept: Mapping[str, Tensor]) -> tuple[Removed, list[int]]:
    """What goes of each layer, and how many channels stay of each of the coupled ones."""
    removed: dict[tuple[str, str], set[int]] = {}
    left = []
    for coupled in graph.coupled:
        gone = (~kept[coupled.layer]).nonzero()[:, 0].tolist() if coupled.layer in kept else []
        left.append(coupled.channels - len(gone) * coupled.sets)
        if gone:
            for of_layer, channels in graph.removed(coupled, gone).items():
                removed[of_layer] = removed.get(of_layer, set()) | set(channels)
    if not removed:
        raise ValueError("--channels: so many of its channels stay that none goes; give a smaller fraction")
    return {of_layer: sorted(channels) for of_layer, channels in removed.items()}, left


def _without(built: BuiltModel, removed: Removed) -> BuiltModel:
    before = built.model.state_dict()
    state = without(before, built.model, removed)
    widths = {**built.widths, **widths_of(state, before)}
    spec = built.spec
    model, widths = create_narrow(built.name, built.num_classes, spec.channels, spec.size, built.model_args, widths)
    model.load_state_dict(state)
    return replace(built, model=model, widths=widths)


@torch.no_grad()
def _compare(built: BuiltModel, small: BuiltModel, removed: Removed, shape: tuple[int, ...]) -> None:
    """Refuse what is left if it depended on removed channels: then the dependency graph was not the network's."""
    whole, left = (copy.deepcopy(one.model).double().eval() for one in (built, small))
    silence(whole, removed)
    images_NCHW = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = whole(images_NCHW)
    try:
        difference = (left(images_NCHW) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    except RuntimeError as error:
        raise ValueError(f"channels of {built.name} cannot be removed: {str(error).splitlines()[0]}") from error
    if not difference <= SMALLEST:
        readers = [path for path, side in removed if side == IN]
        raise ValueError(
            f"channels of {built.name} cannot be removed: without those that {listed(readers, 3)} read, its outputs "
            f"differ by {difference:.2g} of the largest"
        )


def _bytes(path: Path) -> int:
    return path.stat().st_size
