"""Several teachers as one.

Shapes: N samples, C classes, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def combine(
    logits: Sequence[Tensor], temperature: float, weights: Sequence[float], temperatures: Sequence[float]
) -> Tensor:
    """Logits whose softmax at `temperature` is the weighted mean of the teachers' softened probabilities.

    Averaging probabilities, not logits, is what minimising Σ_k w_k·KL(p_k‖q) asks for: it equals KL(p̄‖q) plus a term
    without q, with p̄ = Σ_k w_k·p_k.

    Args:
        logits: K tensors N×C.
        temperature: T of the run.
        weights: K numbers ≥ 0 that add up to 1.
        temperatures: K, with which each teacher's logits are softened.

    Returns:
        float32 N×C: T·log p̄ (for one teacher at T: its logits as they are).
    """
    if len(logits) == 1:
        return logits[0].float() * (temperature / temperatures[0])
    log_p_KNC = torch.stack(
        [torch.log_softmax(z.float() / t, -1) + _log(w) for z, w, t in zip(logits, weights, temperatures, strict=True)]
    )
    return temperature * torch.logsumexp(log_p_KNC, 0)


def normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that add up to 1; equal ones if none are given."""
    weights = weights or [1.0] * count
    return [weight / sum(weights) for weight in weights]


def _log(weight: float) -> float:
    return math.log(weight) if weight > 0 else -math.inf
