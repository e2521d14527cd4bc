"""A mask: which weights of a model are kept, and which are zero."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdprune.messages import listed, shown
from kdprune.models.prunable import prunable

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Mask:
    """The kept weights of a model.

    Attributes:
        kept: for each prunable tensor, by timm's name and in the model's order, which weights are kept, bool in its
            shape, on the host.
        excluded: shapes of the prunable tensors that were left whole.
        made: how: pruner, sparsity, scope, seed and hashes of what it was made from; JSON values.
    """

    kept: dict[str, Tensor]
    excluded: Shapes = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Kept weights."""
        return sum(int(kept.sum()) for kept in self.kept.values())

    @property
    def total(self) -> int:
        """Weights that could be kept."""
        return sum(kept.numel() for kept in self.kept.values())

    @property
    def density(self) -> float:
        """Kept weights / all weights of the prunable tensors."""
        return self.count / self.total

    @property
    def densities(self) -> dict[str, float]:
        """The same of each tensor."""
        return {name: int(kept.sum()) / kept.numel() for name, kept in self.kept.items()}

    @property
    def collapsed(self) -> list[str]:
        """Tensors of which no weight is kept."""
        return [name for name, kept in self.kept.items() if not kept.any()]

    @property
    def hash(self) -> str:
        """SHA-256 over names, shapes and bits, hex: two masks with the same hash keep the same weights."""
        digest = hashlib.sha256()
        for name, kept in sorted(self.kept.items()):
            digest.update(f"{name} {tuple(kept.shape)}".encode())
            digest.update(packed(kept).tobytes())
        return digest.hexdigest()

    def check_fits(self, model: nn.Module, whose: str, name: str) -> None:
        """Refuse a model that the mask was not made for.

        Args:
            whose: begins the message: the option, or the file that the mask comes from.
            name: of the model.

        Raises:
            ValueError: naming the first tensor that differs.
        """
        expected = {one: tuple(weight.shape) for one, weight in model.named_parameters() if one in _names(model)}
        found: Shapes = {**{one: tuple(kept.shape) for one, kept in self.kept.items()}, **self.excluded}
        for tensor in [*expected, *found]:
            if expected.get(tensor) != found.get(tensor):
                raise ValueError(
                    f"{whose} is no mask of {name}: {shown(tensor)} is {_written(found.get(tensor))} in the mask and "
                    f"{_written(expected.get(tensor))} in the model"
                )

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of a model to zero (+0, bit for bit)."""
        parameters = dict(model.named_parameters())
        for name, kept in self.kept.items():
            weight = parameters[name]
            weight.masked_fill_(~kept.to(weight.device), 0)

    def say(self) -> str:
        """What is kept, for the log."""
        thin = sorted(self.densities.items(), key=lambda item: item[1])[:3]
        thinnest = ", ".join(f"{name} {density:.2%}" for name, density in thin)
        left = f"; left whole: {listed(list(self.excluded))}" if self.excluded else ""
        return (
            f"{self.count:,} of {self.total:,} weights are kept ({self.density:.2%}) in {len(self.kept)} tensors, "
            f"the least in {thinnest}{left}"
        )


def packed(kept: Tensor) -> np.ndarray:
    """Bits of a mask, eight to a byte, the first one highest; the last byte is filled with zeros."""
    return np.packbits(kept.reshape(-1).numpy())


def unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `packed`."""
    return torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape))).astype(bool)).reshape(shape)


def _names(model: nn.Module) -> set[str]:
    return set(prunable(model).names)


def _written(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "×".join(map(str, shape))
