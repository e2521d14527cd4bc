"""`timm.create_model`, with errors for the person who typed and nothing silent about the head."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from kdprune.data.size import Size, written
from kdprune.models.names import is_remote
from kdprune.models.weights import StateDict

# Where errors of a download come from; huggingface_hub has changed its HTTP library before.
_NETWORK_PACKAGES = {"huggingface_hub", "requests", "httpx", "httpcore", "urllib", "urllib3", "http", "ssl", "socket"}


def create(
    name: str,
    num_classes: int | None,
    in_chans: int | None,
    size: Size | None,
    pretrained: bool,
    model_args: dict[str, Any],
) -> nn.Module:
    """A timm model; None leaves a property as the model's configuration has it.

    Args:
        size: pixels; handed on to the models whose parameters depend on it (ViT and its like, the MLPs).

    Raises:
        ValueError: timm cannot build it so, has no weights for it, or cannot download them.
    """
    arguments = {"num_classes": num_classes, "in_chans": in_chans, **model_args}
    if size is not None and _takes_size(name):
        arguments["img_size"] = size
    arguments = {key: value for key, value in arguments.items() if value is not None}
    try:
        model = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        raise ValueError(_explained(name, pretrained, arguments, error)) from error
    if getattr(getattr(model, "patch_embed", None), "num_patches", None) == 0:
        raise ValueError(
            f"{name} cuts images into patches, and an image of {written(size or 0)} pixels is smaller than one"
        )
    return model


def odd_head(model: nn.Module, state: StateDict) -> str | None:
    """What is wrong with the classifier in `state` for this model; None where it fits, or nothing of `state` does."""
    expected = model.state_dict()
    if not expected.keys() & state.keys():
        return None
    for key in (f"{module}weight" for module in head_names(model)):
        if key in expected and key not in state:
            return f"it has no classifier ({key} is absent)"
        if key in expected and state[key].shape[:1] != expected[key].shape[:1]:
            return f"it has {state[key].shape[0]} classes"
    return None


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the classifier's parameters, such as `('fc.',)`; two for a distilled transformer."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    named = (named,) if isinstance(named, str) else tuple(named)
    heads = [name for name in named if name in dict(model.named_modules())]
    if not heads:
        find: Any = getattr(model, "get_classifier", lambda: None)
        classifier = find()
        heads = [name for name, module in model.named_modules() if module is classifier]
    return tuple(f"{name}." for name in heads)


def _takes_size(name: str) -> bool:
    if is_remote(name):
        return True  # what it is is known only after a download; a size is given on explicit wish alone
    config = get_pretrained_cfg(name)
    return config is not None and bool(config.fixed_input_size)


def _explained(name: str, pretrained: bool, arguments: dict[str, Any], error: Exception) -> str:
    if "No pretrained weights exist" in str(error):
        return f"timm has no pretrained weights for {name}: give a checkpoint file, or train it (pretrained=false)"
    if (pretrained or is_remote(name)) and _is_network(error):
        return (
            f"could not download {name} ({_origin(name)}): {_first_line(error)}. Without a network, give the "
            "weights as a checkpoint file (.safetensors or .pth), or copy the Hugging Face cache here and set HF_HOME"
        )
    given = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return f"timm cannot build {name} with {given}: {_first_line(error)}"


def _is_network(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES:
            return True
        error = error.__cause__ or error.__context__
    return False


def _origin(name: str) -> str:
    if is_remote(name):
        return f"tried {name}"
    config = get_pretrained_cfg(name)
    origin = config and (config.hf_hub_id or config.url)
    return f"tried {origin}" if origin else "no source is known"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
