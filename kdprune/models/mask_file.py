"""A mask in files: `mask.safetensors` holds the bits by timm's tensor names, `mask.json` says what they are."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from kdprune.files import write_json, write_whole
from kdprune.messages import shown
from kdprune.models.mask import Mask, packed, unpacked
from kdprune.models.weights import read_weights
from kdprune.outside import (
    MAPPING,
    TEXT,
    check_fields,
    check_format,
    first_repeated,
    having,
    list_of,
    read_json,
    whole,
)

FORMAT = "kdprune mask 1"
JSON, BITS = "mask.json", "mask.safetensors"


def save_mask(folder: str | Path, mask: Mask) -> list[str]:
    """Write a mask into a folder, each file whole or not at all; gives their names."""
    folder = Path(folder)
    bits = {name: torch.from_numpy(packed(kept)) for name, kept in mask.kept.items()}
    content = safetensors.torch.save(bits)
    write_whole(folder / BITS, lambda file: file.write(content))
    densities = mask.densities
    write_json(
        folder / JSON,
        {
            "format": FORMAT,
            "made": mask.made,
            "density": mask.density,
            "kept": mask.count,
            "total": mask.total,
            "tensors": [
                {"name": name, "shape": list(kept.shape), "kept": int(kept.sum()), "density": densities[name]}
                for name, kept in mask.kept.items()
            ],
            "excluded": [{"name": name, "shape": list(shape)} for name, shape in mask.excluded.items()],
            "hash": mask.hash,
        },
    )
    return [BITS, JSON]


def load_mask(path: str | Path) -> Mask:
    """Read a mask that anybody may have written.

    Args:
        path: `mask.json`, or the folder that it is in, such as a run directory; the bits lie beside it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no mask, a damaged one, or bits that are not those that the file speaks of.
    """
    path = _file(Path(path))
    content = read_json(path)
    check_format(content, FORMAT, str(path), "a mask")
    check_fields(content, _FIELDS, str(path))
    shapes = {one["name"]: tuple(one["shape"]) for one in content["tensors"]}
    excluded = {one["name"]: tuple(one["shape"]) for one in content["excluded"]}
    names = [one["name"] for one in (*content["tensors"], *content["excluded"])]
    if (twice := first_repeated(names)) is not None:
        raise ValueError(f"{path} is damaged: {shown(twice)} is named twice")
    if not shapes:
        raise ValueError(f"{path} is damaged: it names no tensor")
    bits = _read_bits(path.with_name(BITS))
    if (other := next(iter(bits.keys() ^ shapes.keys()), None)) is not None:
        raise ValueError(f"{path} and the bits beside it do not belong together: only one of them has {shown(other)}")
    kept = {name: _unpacked(bits[name], shape, f"{path}: {shown(name)}") for name, shape in shapes.items()}
    mask = Mask(kept, excluded, content["made"])
    if mask.hash != content["hash"]:
        raise ValueError(f"{path}: the bits do not match the hash in the file, so one of them was changed")
    return mask


_SHAPE = list_of(whole(1, 2**31))
_TENSOR: Mapping[str, Any] = {"name": TEXT, "shape": _SHAPE}
_FIELDS = {"made": MAPPING, "tensors": list_of(having(_TENSOR)), "excluded": list_of(having(_TENSOR)), "hash": TEXT}


def _file(path: Path) -> Path:
    found = path / JSON if path.is_dir() else path
    if not found.exists():
        raise FileNotFoundError(f"{path} is a folder without a {JSON}" if path.is_dir() else f"{path}: no such mask")
    return found


def _read_bits(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise ValueError(f"{path} is missing, which holds the bits of the mask")
    bits, _ = read_weights(path)
    return bits


def _unpacked(bits: Tensor, shape: tuple[int, ...], where: str) -> Tensor:
    """A tensor's mask, once its bits are known to be as many as its shape says, so that no shape takes memory."""
    count = prod(shape)
    if bits.dtype != torch.uint8 or tuple(bits.shape) != ((count + 7) // 8,):
        raise ValueError(f"{where} has {bits.dtype} {tuple(bits.shape)}, and should have uint8 ({(count + 7) // 8},)")
    kept = unpacked(bits.numpy(), shape)
    if (packed(kept) != bits.numpy()).any():
        raise ValueError(f"{where} has bits behind its last weight")
    return kept
