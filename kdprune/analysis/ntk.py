"""The neural tangent kernel of a few samples, and how fast it changes.

Shapes: N samples, C classes, P parameters, W parameters of a slice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

MEMORY = 2**30  # bytes of the Jacobian that are held at a time
CHUNK = 16  # samples differentiated at once


def ntk_gram(model: nn.Module, images_NCHW: Tensor, memory: int = MEMORY, chunk: int = CHUNK) -> Tensor:
    """K = J Jᵀ, where a row of J is the gradient of one logit of one sample by all trained parameters: float64 NC×NC.

    Of the whole kernel of Fort et al. 2020 (arXiv 2010.15110, §2), between all pairs of samples and of logits; rows go
    by sample, then class. J has N·C·P numbers. It is made in slices of parameters that fit the memory, each with as
    many backward passes, so that a large model costs time and never memory.

    Args:
        model: in evaluation mode. BatchNorm in training mode would mix the samples, so that no sample had a gradient.
        images_NCHW: what the model takes, normalised.

    Raises:
        ValueError: a model in training mode, or without a parameter to train.
    """
    if model.training:
        raise ValueError("the model is in training mode, in which a logit may depend on the other samples")
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("the model has no parameter that is trained, and so no kernel")
    fixed = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    fixed |= {name: buffer.detach() for name, buffer in model.named_buffers()}

    def jacobian(names: list[str]) -> dict[str, Tensor]:
        rest = fixed | {name: p for name, p in parameters.items() if name not in names}

        def logits(some: dict[str, Tensor], image_CHW: Tensor) -> Tensor:
            return functional_call(model, rest | some, (image_CHW[None],))[0].float()

        one = jacrev(logits)
        return vmap(one, (None, 0), chunk_size=chunk)({name: parameters[name] for name in names}, images_NCHW)

    gram: Tensor | None = None
    with torch.no_grad():
        rows = len(images_NCHW) * model(images_NCHW[:1]).shape[1]
    for names in slices({name: p.numel() for name, p in parameters.items()}, max(1, memory // (4 * rows))):
        part_NCW = torch.cat([x.flatten(2) for x in jacobian(names).values()], dim=2).flatten(0, 1)
        tile = (part_NCW @ part_NCW.T).double()
        gram = tile if gram is None else gram.add_(tile)
    assert gram is not None
    return gram


def slices(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
    """Names of tensors in groups of at most `most` elements, or of one tensor that is larger; in their order."""
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    yield group


def velocity(gram: Tensor, later: Tensor) -> float:
    """1 − ⟨K, K'⟩ / (‖K‖‖K'‖), the cosine distance of two kernels of the same samples, in [0, 1].

    Fort et al. 2020, §2; with kernels one epoch apart it is the velocity of Paul et al. 2021, §5.1. Both are positive
    semi-definite, so it is never above 1.

    Raises:
        ValueError: kernels of different shapes, or a kernel that is 0.
    """
    if gram.shape != later.shape:
        raise ValueError(f"kernels of shapes {tuple(gram.shape)} and {tuple(later.shape)} given")
    norms = gram.norm() * later.norm()
    if not norms > 0:
        raise ValueError("a kernel is 0: no parameter moves any logit of these samples")
    return max(0.0, 1 - float((gram * later).sum() / norms))
