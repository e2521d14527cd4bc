"""Several teachers as one.

Shapes: N samples, C classes, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def combine(
    logits: Sequence[Tensor],
    temperature: float,
    weights: Sequence[float | Tensor],
    temperatures: Sequence[float],
) -> Tensor:
    """Logits whose softmax at `temperature` is the weighted mean of the teachers' softened probabilities.

    Averaging probabilities, not logits, is what minimising Σ_k w_k·KL(p_k‖q) asks for: it equals KL(p̄‖q) plus a term
    without q, with p̄ = Σ_k w_k·p_k. Of a sample's logits the mean, which no softmax sees, is the teachers' mean, so
    that twice the same teacher is that teacher.

    Args:
        logits: K tensors N×C.
        temperature: T of the run.
        weights: K numbers ≥ 0 that add up to 1, or K tensors N of such numbers for each sample.
        temperatures: K, with which each teacher's logits are softened.

    Returns:
        float32 N×C: T·log p̄ plus a number for each sample (for one teacher at T: its logits as they are).
    """
    if len(logits) == 1:
        return logits[0].float() * (temperature / temperatures[0])
    softened = [z.float() / t for z, t in zip(logits, temperatures, strict=True)]
    columns = [w[:, None] if isinstance(w, Tensor) else w for w in weights]
    log_p = [torch.log_softmax(z, -1) + _log(w) for z, w in zip(softened, columns, strict=True)]
    log_p_NC = torch.logsumexp(torch.stack(log_p), 0)
    mean_KN1 = torch.stack([w * z.mean(-1, keepdim=True) for z, w in zip(softened, columns, strict=True)])
    return temperature * (log_p_NC - log_p_NC.mean(-1, keepdim=True) + mean_KN1.sum(0))


def trusted(logits: Sequence[Tensor], weights: Sequence[float], target: Tensor) -> list[Tensor]:
    """Weights of each sample: a teacher counts as much as the probability that it gives to the sample's label.

    Args:
        logits: K tensors N×C.
        weights: K numbers ≥ 0, of the teachers as such.
        target: class ids N or class probabilities N×C.

    Returns:
        K tensors N that add up to 1 for every sample.
    """
    if target.ndim == 1:
        log_p = [torch.log_softmax(z.float(), -1).gather(1, target[:, None])[:, 0] for z in logits]
    else:
        log_p = [torch.logsumexp(torch.log_softmax(z.float(), -1) + target.log(), 1) for z in logits]
    log_w_KN = torch.stack([p + _log(w) for p, w in zip(log_p, weights, strict=True)])
    return list(torch.softmax(log_w_KN, 0))


def likeliest(log_p_KN: Tensor, tolerance: float = 1e-6) -> list[float]:
    """Weights of teachers that make held-out labels most likely under the weighted mean of their probabilities.

    Maximises Σ_n log Σ_k w_k·p_k(y_n), which is concave, by expectation maximisation (Dempster, Laird & Rubin 1977,
    §4.3, with the components fixed): w_k ← mean over n of w_k·p_k(y_n) / Σ_j w_j·p_j(y_n).

    Args:
        log_p_KN: what each of K teachers gives to the label of N held-out samples, as a logarithm.
        tolerance: ends when no weight changes by more in a step.

    Returns:
        K numbers ≥ 0 that add up to 1.
    """
    log_p_KN = log_p_KN.double()
    w_K = torch.full((len(log_p_KN), 1), 1 / len(log_p_KN), dtype=torch.float64)
    for _ in range(10_000):
        before = w_K
        w_K = torch.softmax(log_p_KN + w_K.log(), 0).mean(1, keepdim=True)
        if (w_K - before).abs().max() <= tolerance:
            break
    return w_K[:, 0].tolist()


def normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that add up to 1; equal ones if none are given."""
    weights = weights or [1.0] * count
    return [weight / sum(weights) for weight in weights]


def _log(weight: float | Tensor) -> float | Tensor:
    if isinstance(weight, Tensor):
        return weight.log()
    return math.log(weight) if weight > 0 else -math.inf
