"""Rows of a table, looked up by the input: token embeddings.

Shapes: N samples, T tokens, V rows of the table, D their width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.uses import Use, spans, wide


class Lookup:
    """A sample's gradient holds at a row the sum over the tokens that looked it up."""

    def __init__(self, ids_NT: Tensor, gradient_NTD: Tensor, rows: int) -> None:
        self._ids, self._gradient, self._rows = ids_NT, gradient_NTD, rows

    def gradients(self, first: int, end: int) -> Tensor:
        gradient = wide(self._gradient[first:end])
        table = gradient.new_zeros(end - first, self._rows, gradient.shape[2])
        return table.scatter_add_(1, self._ids[first:end, :, None].expand_as(gradient), gradient)

    def squares(self) -> Tensor:
        """Tokens that are equal share a row: the inner products of their gradients count, those of others do not."""
        samples, tokens = self._ids.shape
        return torch.cat([self._gram(*span) for span in spans(samples, 2 * tokens**2)])

    def _gram(self, first: int, end: int) -> Tensor:
        ids, gradient = self._ids[first:end], wide(self._gradient[first:end])
        same = ids[:, :, None] == ids[:, None]
        return torch.bmm(gradient, gradient.transpose(1, 2)).mul_(same).sum((1, 2))


def embedding(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use | None:
    """`nn.Embedding`; a row of padding learns nothing."""
    ids: Tensor = node._saved_indices  # type: ignore[attr-defined]
    padding = node._saved_padding_idx  # type: ignore[attr-defined]
    if node._saved_scale_grad_by_freq or layout.dim >= ids.ndim:  # type: ignore[attr-defined]
        return None
    learnt = gradient * (ids != padding)[..., None]
    split = layout.split(learnt)
    return Lookup(layout.split(ids).flatten(1), split.flatten(1, -2), shape[0])
