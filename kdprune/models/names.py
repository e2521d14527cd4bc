"""Model names: known to timm (ours are registered there by `kdprune.models`), or on a hub."""

from __future__ import annotations

import timm
from timm.models import get_pretrained_cfg

from kdprune.messages import did_you_mean

REMOTE = ("hf-hub:", "hf_hub:", "local-dir:")


def is_remote(name: str) -> bool:
    """Whether timm looks the model up outside its registry (`hf-hub:org/model`, `local-dir:folder`)."""
    return name.startswith(REMOTE)


def check_model_name(name: str) -> None:
    """Refuse a model name that timm cannot build. Names on a hub are not looked up here.

    Raises:
        ValueError: unknown model or pretrained tag; the message has the nearest names.
    """
    if is_remote(name):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models(), most=5)
        raise ValueError(
            f"unknown model {name!r}{hint} (timm's names, 'cifar_resnet20' and its "
            f"like, 'mlp_800', or 'hf-hub:ORG/MODEL'; timm.list_models('*PART*') lists them)"
        )
    if tag:
        _check_tag(name, architecture)


def _check_tag(name: str, architecture: str) -> None:
    try:
        get_pretrained_cfg(name)
    except RuntimeError:
        tagged = [known for known in timm.list_pretrained(f"{architecture}.*") if known.startswith(f"{architecture}.")]
        allowed = ", ".join(tagged) or "none"
        hint = did_you_mean(name, tagged, most=5)
        raise ValueError(f"unknown pretrained tag in {name!r}{hint} (weights of {architecture}: {allowed})") from None
