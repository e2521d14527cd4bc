"""Which closed form fits which operation of autograd."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import Node

from kdprune.models.gradient_norms.convolution import convolution
from kdprune.models.gradient_norms.elementwise import elementwise, passed, repeated, scaled
from kdprune.models.gradient_norms.embedding import embedding
from kdprune.models.gradient_norms.graph import Shape
from kdprune.models.gradient_norms.layout import Layout
from kdprune.models.gradient_norms.matmul import addmm, mm
from kdprune.models.gradient_norms.normalisation import batch_norm, group_norm, layer_norm
from kdprune.models.gradient_norms.uses import Masked, Use

Rule = Callable[[Node, int, Tensor, Layout, Shape], Use | None]

RULES: dict[str, Rule] = {
    "AddBackward0": passed,
    "AddcmulBackward0": elementwise,
    "AddmmBackward0": addmm,
    "ConvolutionBackward0": convolution,
    "CudnnBatchNormBackward0": batch_norm,
    "DivBackward0": elementwise,
    "EmbeddingBackward0": embedding,
    "ExpandBackward0": passed,
    "MmBackward0": mm,
    "MulBackward0": scaled,
    "NativeBatchNormBackward0": batch_norm,
    "NativeGroupNormBackward0": group_norm,
    "NativeLayerNormBackward0": layer_norm,
    "PreluKernelBackward0": elementwise,
    "RepeatBackward0": repeated,
    "SubBackward0": elementwise,
    "WhereBackward0": elementwise,
}


def use_of(node: Node, slot: int, gradient: Tensor, layout: Layout, shape: Shape) -> Use:
    """The use of a tensor of parameters of this shape as input `slot` of an operation.

    `gradient` is that of the operation's first output. What has no closed form is done sample by sample.
    """
    rule = RULES.get(node.name())
    use = rule(node, slot, gradient, layout, shape) if rule else None
    return use or Masked(node, slot, gradient, layout, shape)
