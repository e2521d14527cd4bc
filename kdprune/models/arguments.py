"""Arguments of models that come from files of others: only what shapes the network, as plain values.

`timm.create_model` takes more than a model's own arguments. Some of it loads files (`checkpoint_path`, in older
versions with pickle, so that it could run code), asks the network (`pretrained`, `pretrained_cfg`) or changes the kind
of what is built (`features_only`). So a file may only name parameters of the classes that its model is made of, and
give them numbers, switches and short words.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdprune.messages import shown, unknown
from kdprune.models.names import check_model_name, is_remote

LARGEST = 2**16  # of a number: widths, depths and sizes of images are far below
MOST = 64  # values of a list: stages, blocks
_WORD = re.compile(r"\w{0,32}")  # 'avg', 'gelu', 'layernorm2d': never a path
_NEVER = {"device", "dtype", "file", "cache_dir", "checkpoint_path", "scriptable", "exportable", "no_jit"}
_NEVER_PREFIXES = ("pretrained", "features_only", "feature_cls", "out_indices")


def check_saved_name(name: str, where: str) -> None:
    """Refuse the name of a model in a file that is not one of timm's own registry.

    Raises:
        ValueError: a name on a hub, a folder, or an unknown name.
    """
    if is_remote(name) or "/" in name or "\\" in name:
        raise ValueError(
            f"{where} is of model {shown(name)}, which leads elsewhere; allowed are names of timm's own models"
        )
    check_model_name(name)


def check_saved_arguments(name: str, arguments: Mapping[str, Any], where: str) -> None:
    """Refuse what is none of a model's own arguments, or no plain value.

    Raises:
        ValueError: naming the argument, and what is allowed.
    """
    allowed = own_arguments(name)
    for argument, value in arguments.items():
        if argument not in allowed:
            raise ValueError(f"{where}: {unknown(f'argument of {name}', argument, sorted(allowed))}")
        if not _is_plain(value):
            raise ValueError(
                f"{where}: {argument} of {name} is {shown(value)}, and allowed are numbers up to {LARGEST:,}, true, "
                f"false, null, single words, and lists of them"
            )


def own_arguments(name: str) -> set[str]:
    """Names of the parameters of the networks in the module where a model is defined."""
    module = sys.modules[timm.model_entrypoint(name.partition(".")[0]).__module__]
    networks = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, nn.Module)]
    found: set[str] = set()
    for network in networks:
        parameters = inspect.signature(network).parameters
        if "num_classes" in parameters:  # a whole network, and no part of one
            found |= set(parameters)
    return {one for one in found - _NEVER - {"args", "kwargs", "self"} if not one.startswith(_NEVER_PREFIXES)}


@contextmanager
def of_the_size_of(state: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Models that are built inside take no memory, and no more parameters than the file `state` is of.

    Raises:
        ValueError: there are more.
    """
    left = 2 * len(state) + 100  # a model may put a part of it in place twice

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"{where} says more of its model than the {len(state):,} tensors that it holds")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        # What a model draws here must not change what is drawn next.
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            yield
    finally:
        hook.remove()


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth < 2 and len(value) <= MOST and all(_is_plain(one, depth + 1) for one in value)
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) <= LARGEST)
