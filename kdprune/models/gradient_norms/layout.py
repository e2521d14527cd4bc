"""Which elements of a tensor inside a network belong to which sample of the batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kdprune.models.gradient_norms.graph import Shape


@dataclass(frozen=True)
class Layout:
    """Dimension `dim` has `rows` elements a sample: windows, tokens, or one.

    Shapes: N samples, R rows a sample. `minor` says that the samples change fastest in that dimension (token by token,
    as in `nn.MultiheadAttention`), not slowest.
    """

    dim: int
    rows: int
    minor: bool = False

    def split(self, tensor: Tensor) -> Tensor:
        """The tensor as N×R×rest."""
        moved = tensor.movedim(self.dim, 0)
        if self.minor:
            return moved.unflatten(0, (self.rows, -1)).transpose(0, 1)
        return moved.unflatten(0, (-1, self.rows))


def find_layout(shape_of_2: Shape, shape_of_3: Shape) -> Layout | None:
    """The layout of an output that has these shapes in batches of two and of three samples; None if there is none."""
    if len(shape_of_2) != len(shape_of_3):
        return None
    differing = [d for d, (a, b) in enumerate(zip(shape_of_2, shape_of_3, strict=True)) if a != b]
    if len(differing) != 1:
        return None
    dim = differing[0]
    rows, remainder = divmod(shape_of_2[dim], 2)
    return Layout(dim, rows) if not remainder and rows * 3 == shape_of_3[dim] else None
