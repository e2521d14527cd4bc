"""Reading weights that others wrote, without running their code."""

from __future__ import annotations

import argparse
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from kdprune.messages import shown
from kdprune.models.hashing import weights_hash
from kdprune.outside import (
    MAPPING,
    TEXT,
    check_fields,
    check_regular,
    list_of,
    mapping_of,
    optional,
    parse_json,
    whole,
)

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
METADATA_KEY = "kdprune"
WEIGHTS_HASH = "weights_hash"  # entry of our header
# timm's order: the averaged weights are the ones whose accuracy was reported.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SHOWN = 5
_DEEPEST = 5  # wrappers in each other

StateDict = dict[str, Tensor]


def read_weights(path: str | Path) -> tuple[StateDict, dict[str, Any] | None]:
    """The state dict in a weights file, and our own header where it has one.

    Returns:
        Tensors by name on the CPU, out of any wrapper; prefixes are left as they are (see `matched`).

    Raises:
        ValueError: no such file, an unknown kind of file, a damaged one, one that could run code, no weights in it, or
            others than its header was written for.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such checkpoint file: {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"cannot read {path}: a checkpoint ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrapped(_read_pickle(path), path), None


_HEADER = {
    "name": TEXT, "num_classes": whole(0, 2**24), "spec": MAPPING, "classes": optional(list_of(TEXT)),
    "info": MAPPING, "model_args": MAPPING, "structure": optional(TEXT), WEIGHTS_HASH: optional(TEXT),
    "widths": mapping_of(list_of(whole(1, 2**24))),
}  # fmt: skip


def read_header(path: str | Path) -> dict[str, Any] | None:
    """Our own header of a safetensors file, each field of its kind; None for anybody else's. Reads no tensor.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no safetensors file, a damaged one, or a header that is not as `save_model` writes it.
    """
    check_regular(path, os.stat(path))
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from None
    if text is None:
        return None
    where = f"{path}: its header"
    header = check_fields(parse_json(text, where), _HEADER, where, may_lack=("structure", WEIGHTS_HASH, "widths"))
    if header["classes"] is not None and len(header["classes"]) != header["num_classes"]:
        raise ValueError(f"{where} names {len(header['classes'])} classes, and says {header['num_classes']}")
    return header


def matched(state: StateDict, expected: Iterable[str]) -> StateDict:
    """Take off the prefixes of wrappers (`module.`, `_orig_mod.`, `model.`) until the names are the model's."""
    expected = set(expected)
    while not expected & state.keys():
        prefix = next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def check_fit(state: StateDict, expected: Mapping[str, Tensor], whose: str) -> None:
    """Refuse weights that are not exactly the model's.

    Raises:
        ValueError: names that are missing or not expected, or other shapes; the first few are named.
    """
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    problems = [f"{len(keys)} {what} ({_first(keys)})" for what, keys in found if keys]
    if problems:
        raise ValueError(f"{whose} do not fit: of {len(expected)} tensors {'; '.join(problems)}")


def check_finite(model: nn.Module, whose: str) -> None:
    """Refuse weights of a training that diverged.

    Args:
        whose: the subject of the message.

    Raises:
        ValueError: NaN or infinite values; the first few tensors are named. Buffers may hold infinite ones (masks).
    """
    parameters = dict(model.named_parameters())
    if odd := [name for name, parameter in parameters.items() if not parameter.isfinite().all()]:
        raise ValueError(
            f"{whose}: not finite (NaN or infinite values) in {len(odd)} of {len(parameters)} tensors ({_first(odd)})"
        )


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite; waits for the device once."""
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")


def _read_safetensors(path: Path) -> tuple[StateDict, dict[str, Any] | None]:
    header = read_header(path)
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (safetensors.SafetensorError, OSError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None  # or of a type that this torch does not have
    _check_hash(path, state, header)
    return state, header


def _check_hash(path: Path, state: StateDict, header: dict[str, Any] | None) -> None:
    """A flipped bit is a valid number, so no parser finds it. Files of others and of older versions have no hash."""
    written = (header or {}).get(WEIGHTS_HASH)
    if written is not None and written != (found := weights_hash(state)):
        raise ValueError(
            f"{path} is damaged: its weights are not those that were written: their hash is {found[:12]}…, the header "
            f"says {str(written)[:12]}…"
        )


def _read_pickle(path: Path) -> Any:
    _check_records(path)
    try:
        # timm's own training script keeps its arguments beside the weights; a Namespace is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever its data make Python raise
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise ValueError(_unsafe(path)) from None
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(f"{path} is damaged or not a PyTorch checkpoint: {reason.splitlines()[0]}") from None


def _check_records(path: Path) -> None:
    """Refuse a file that is larger in memory than on the disk: torch compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [record.filename for record in archive.infolist() if record.compress_type]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{path} is damaged or not a PyTorch checkpoint: {error}") from None
    if packed:
        raise ValueError(f"{path} is not a PyTorch checkpoint: its record {shown(packed[0])} is compressed")


def _unsafe(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # old tar files cannot be listed; the advice stands without the names
        names = []
    what = f" ({', '.join(names[:_SHOWN])})" if names else ""
    return (
        f"{path} holds Python objects besides tensors{what}; reading them could run code, so it is not loaded. "
        "If you trust its source, convert it once: state = torch.load(PATH, weights_only=False); "
        "safetensors.torch.save_file(STATE_DICT, 'weights.safetensors')"
    )


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse a tensor that is no block of numbers: a sparse one, or a single number seen a million million times."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{path} is damaged: {shown(name)}, of shape {tuple(tensor.shape)}, is no dense tensor")


def _unwrapped(content: Any, path: Path) -> StateDict:
    for _ in range(_DEEPEST):  # a mapping can hold itself
        if not isinstance(content, Mapping):
            break
        inner = next(
            (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping) and content[key]), None
        )
        if inner is None:
            break
        content = inner
    everything = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in everything if isinstance(name, str) and isinstance(value, Tensor)}
    for name, value in tensors.items():
        _check_tensor(name, value, path)
    if not tensors:
        found = ", ".join(map(str, list(content)[:_SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"{path} holds no weights: expected tensors by name, or {', '.join(_WRAPPERS)}; found {found}")
    return tensors
