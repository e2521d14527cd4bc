"""The definition that everything else here is held to: one backward pass for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdprune.models.gradient_norms.uses import squared_norms

Losses = Callable[[Tensor, Tensor], Tensor]  # inputs N×…, targets N×… → losses N


def loop(
    losses: Losses, parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses, and squared norms of their gradients by parameter, of each sample by itself: N each.

    A sample is passed twice and counts once: in a batch of one, PyTorch's BatchNorm in eval mode (on the CPU, seen in
    2.15) gives wrong gradients where the next layer reads channels last, as in LeViT and XCiT.
    """
    values, squares = [], []
    for i in range(len(inputs)):
        loss = losses(inputs[[i, i]], targets[[i, i]])[:1]
        gradients = torch.autograd.grad(loss.sum(), list(parameters.values()), allow_unused=True)
        values.append(loss.detach())
        squares.append([loss.new_zeros(1) if g is None else squared_norms(g[None]) for g in gradients])
    columns = zip(parameters, zip(*squares, strict=True), strict=True)
    return torch.cat(values), {name: torch.cat(column) for name, column in columns}
