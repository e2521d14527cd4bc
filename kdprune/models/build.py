"""Students and teachers: timm's models, from scratch, pretrained, from a weights file or from an earlier run.

What the data looks like (`channels`, `image_size`, `mean`, `std`) shapes a model that is built from scratch. One with
a past keeps its own: a pretrained model has timm's configuration, a file that `save_model` wrote has its header. The
caller's explicit wish (`in_chans`, `img_size`, timm's names) goes before both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kdprune.data.size import Size, size_of
from kdprune.models.create import create, head_names, odd_head
from kdprune.models.locate import resolve_teacher
from kdprune.models.names import check_model_name, is_remote
from kdprune.models.narrow import Widths, create_narrow
from kdprune.models.saved import check_saved, load_model, save_model
from kdprune.models.spec import BuiltModel, InputSpec, own_spec, scratch_spec
from kdprune.models.weights import StateDict, check_finite, check_fit, matched, read_weights

__all__ = [
    "BuiltModel",
    "InputSpec",
    "build_student",
    "build_teacher",
    "check_model_name",
    "count_parameters",
    "load_model",
    "resolve_teacher",
    "save_model",
]

_log = logging.getLogger(__name__)

# Arguments that shape training or loading, not the parameters: a model is built again without them.
_PASSING = ("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "cache_dir")


def build_student(
    name: str,
    num_classes: int,
    *,
    channels: int | None = None,
    image_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    classes: list[str] | None = None,
    **model_args: Any,
) -> BuiltModel:
    """A model to be trained.

    Args:
        name: any of timm's names, with a pretrained tag or without; `hf-hub:ORG/MODEL`.
        num_classes: outputs wanted. A pretrained model or a checkpoint of another class count gets a new head.
        channels, image_size, mean, std: of the data, for a model without a past; None for timm's defaults.
        in_chans, img_size: override what the model with a past was made for.
        pretrained: start from timm's weights; channels and normalisation are then the model's own.
        checkpoint: start from this file; goes before `pretrained`.
        classes: names of the classes in the order of the labels, kept for `save_model`.
        model_args: more for the model (`drop_rate`, `drop_path_rate`, …); None is left out.

    Raises:
        ValueError: whatever does not fit together, said in terms of the arguments.
    """
    check_model_name(name)
    wish = _Wish(channels, _size(image_size), mean, std, in_chans, _size(img_size), _given(model_args))
    if checkpoint is not None:
        if pretrained:
            _log.warning("student %s: `pretrained` has no effect beside the checkpoint %s", name, checkpoint)
        built = _from_file(name, num_classes, Path(checkpoint), wish, new_head=True)
    else:
        built = _from_timm(name, num_classes, wish, pretrained)
    built.classes = classes
    return built


def build_teacher(
    name: str,
    num_classes: int | None,
    *,
    channels: int | None = None,
    image_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    classes: list[str] | None = None,
    **model_args: Any,
) -> BuiltModel:
    """A model to learn from, in evaluation mode, its parameters without gradients. It keeps the head it came with.

    Args:
        name: as for a student, or an earlier run (`RUN`, `RUN@EPOCH`, `FILE.safetensors`; see `resolve_teacher`).
        num_classes: classes of the data; the teacher must have as many. None: only its features are asked for, and
            classes do not matter.
        classes: names of the data's classes, compared with those that the teacher's file names.

    The rest is as in `build_student`.

    Raises:
        ValueError: no weights asked for, another class count, no classifier in the weights, classes in another order.
    """
    run = resolve_teacher(name) if checkpoint is None else None
    wish = _Wish(channels, _size(image_size), mean, std, in_chans, _size(img_size), _given(model_args))
    if run is not None:
        built = load_model(run)
        built.spec = replace(built.spec, size=wish.img_size or built.spec.size)
    elif checkpoint is not None:
        check_model_name(name)
        assert num_classes is not None, "a head is asked for"
        built = _from_file(name, num_classes, Path(checkpoint), wish, new_head=False)
    elif pretrained:
        check_model_name(name)
        # With its own class count: asked for another one, timm would put in a random head and go on.
        built = _from_timm(name, None, wish, pretrained=True)
    else:
        check_model_name(name)
        raise ValueError(f"teacher {name} has no weights: give it a checkpoint, pretrained=true or an earlier run")
    if num_classes is not None:
        _check_classes(str(run or checkpoint or name), built, num_classes, classes)
    built.classes = built.classes or classes
    built.model.eval().requires_grad_(False)
    return built


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trained or not; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass
class _Wish:
    """What the caller said about a model: the data's properties, explicit overrides, arguments of the model."""

    channels: int | None
    image_size: Size | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    in_chans: int | None
    img_size: Size | None
    model_args: dict[str, Any]


def _from_timm(
    name: str, num_classes: int | None, wish: _Wish, pretrained: bool, widths: Widths | None = None
) -> BuiltModel:
    """From scratch or with timm's weights. `num_classes` None keeps the model's own head.

    Args:
        widths: of a network whose channels were pruned; it has values in its head alone.
    """
    in_chans = wish.in_chans if pretrained else wish.in_chans or wish.channels
    size = wish.img_size if pretrained else wish.img_size or wish.image_size
    if widths:
        assert num_classes is not None, "a file with widths is no pretrained model"
        model, widths = create_narrow(name, num_classes, in_chans, size, wish.model_args, widths)
    else:
        model = create(name, num_classes, in_chans, size, pretrained, wish.model_args)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    spec = own_spec(model, in_chans or config["input_size"][0], size)
    built = BuiltModel(
        model=model,
        # A name on a hub stands for an architecture, which loads without the hub.
        name=config["architecture"] if is_remote(name) else name,
        num_classes=int(model.num_classes) if num_classes is None else num_classes,  # type: ignore[arg-type]
        spec=spec if pretrained else scratch_spec(spec, wish.mean, wish.std),
        info={"pretrained": name} if pretrained else {},
        model_args=_lasting(model, wish.model_args),
        widths=dict(widths or {}),
    )
    if pretrained and config["num_classes"] != built.num_classes:
        _log.warning(
            "%s: a new head for %d classes, its weights have %d", name, built.num_classes, config["num_classes"]
        )
    return built


def _from_file(name: str, num_classes: int, path: Path, wish: _Wish, new_head: bool) -> BuiltModel:
    """The named model with the weights of `path`; an odd head is replaced (student) or refused (teacher)."""
    state, header = read_weights(path)
    wish = _with_past(name, path, state, header, wish)
    built = _from_timm(name, num_classes, wish, pretrained=False, widths=(header or {}).get("widths"))
    if header is not None:
        own = InputSpec.from_json(header["spec"])
        built.spec = replace(own, size=wish.img_size or own.size)
        built.classes, built.info = header["classes"], header["info"]
    expected = built.model.state_dict()
    state = matched(state, expected)
    odd = odd_head(built.model, state)
    if odd and not new_head:
        raise ValueError(f"{path} is no teacher for data of {num_classes} classes: {odd}")
    if odd:
        _log.warning("%s: a new head for %d classes (%s: %s)", name, num_classes, path, odd)
        state = _with_head_of(state, expected, head_names(built.model))
    check_fit(state, expected, f"the weights of {path} and {name}")
    built.model.load_state_dict(state)
    check_finite(built.model, f"the weights of {path}")
    return built


def _with_head_of(state: StateDict, fresh: StateDict, heads: tuple[str, ...]) -> StateDict:
    body = {key: value for key, value in state.items() if not key.startswith(heads)}
    return {**body, **{key: value for key, value in fresh.items() if key.startswith(heads)}}


def _with_past(name: str, path: Path, state: StateDict, header: dict[str, Any] | None, wish: _Wish) -> _Wish:
    """What the header of a file says about its model, where the caller has no explicit wish."""
    if header is None:
        return wish
    check_saved(path, state, header)
    if header["name"].partition(".")[0] != name.partition(".")[0]:
        raise ValueError(f"{path} holds the weights of {header['name']}, not of {name}")
    return replace(
        wish,
        in_chans=wish.in_chans or header["spec"]["channels"],
        img_size=wish.img_size or size_of(header["spec"]["size"]),
        model_args={**header["model_args"], **wish.model_args},
    )


def _check_classes(whose: str, built: BuiltModel, num_classes: int, classes: list[str] | None) -> None:
    if built.num_classes != num_classes:
        raise ValueError(
            f"teacher {whose} has {built.num_classes} classes, the data has {num_classes}: its head is not replaced, "
            "since a random one would teach noise; train or fine-tune a teacher on this data first"
        )
    if classes is None or built.classes is None or built.classes == classes:
        return
    odd = next(index for index in range(num_classes) if built.classes[index] != classes[index])
    difference = f"class {odd} is {built.classes[odd]!r} to teacher {whose} and {classes[odd]!r} in the data"
    if sorted(built.classes) == sorted(classes):
        raise ValueError(f"{difference}: the same classes in another order")
    _log.warning("%s; the classes are taken to agree by their number", difference)


def _size(given: int | Sequence[int] | None) -> Size | None:
    return None if given is None else size_of(given)


def _given(model_args: dict[str, Any]) -> dict[str, Any]:
    # timm's default of drop_rate is 0, and a few models do not have it.
    return {k: v for k, v in model_args.items() if v is not None and not (k == "drop_rate" and v == 0)}


def _lasting(model: nn.Module, model_args: dict[str, Any]) -> dict[str, Any]:
    """Arguments without which the parameters would have other shapes; a hub's configuration adds its own."""
    from_hub: Any = getattr(model, "pretrained_model_args", None) or {}
    every = {**from_hub, **model_args}
    return {k: v for k, v in every.items() if k not in _PASSING and not k.startswith("pretrained_cfg")}
