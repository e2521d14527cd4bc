"""GraSP without its sign: what changes the norm of the gradient stays, either way (Frankle et al. 2021)."""

from __future__ import annotations

from kdprune.pruners.common.network import Network, Tensors
from kdprune.pruners.common.pruner import pruner
from kdprune.pruners.common.saliency import saliency


@pruner(
    "grasp_abs", labels=True, paper="Frankle et al. 2021, arXiv 2009.08576", cost="three forward and backward passes"
)
def grasp_abs(network: Network, per_class: int = 10, temperature: float = 200.0) -> Tensors:
    """|w⊙(Hg)|: the lowest go (§4 there: better than GraSP at most sparsities)."""
    return saliency(network.weights, network.hessian_gradients(per_class, temperature))
