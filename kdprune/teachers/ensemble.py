"""Several teachers combined into one, so that a loss needs to know of one only.

Shapes: N samples, C classes, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MAX_ITERATIONS = 10_000


def combine(
    logits: Sequence[Tensor],
    temperature: float,
    weights: Sequence[float | Tensor],
    temperatures: Sequence[float],
) -> Tensor:
    """Logits whose softmax at `temperature` is the weighted mean of the teachers' softened probabilities.

    Probabilities are averaged, and not logits, because with p̄ = Σ_k w_k·p_k

        Σ_k w_k·KL(p_k‖q) = KL(p̄‖q) + Σ_k w_k·KL(p_k‖p̄),

    and the last term, how much the teachers disagree, does not depend on the student q. So the combined teacher gives
    the gradients of all of them together, for one evaluation of the loss.

    A softmax determines logits up to one constant a sample. It is chosen such that their mean over the classes is the
    weighted mean of the teachers' own: then an ensemble of identical teachers has that teacher's logits, and losses
    that compare logits themselves (`mse_logits`) can use it.

    Args:
        logits: K tensors N×C.
        temperature: T of the run.
        weights: K numbers ≥ 0 that add up to 1, or K tensors N of such numbers for each sample.
        temperatures: K, with which each teacher's logits are softened.

    Returns:
        float32 N×C: T·log p̄ plus a constant for each sample. A single teacher's logits are only rescaled from its
        temperature to T.
    """
    if len(logits) == 1:
        return logits[0].float() * (temperature / temperatures[0])
    softened = [z.float() / t for z, t in zip(logits, temperatures, strict=True)]
    columns = [w[:, None] if isinstance(w, Tensor) else w for w in weights]
    # In logarithms throughout: a confident teacher's probabilities underflow to 0, their logarithms do not.
    log_p = [torch.log_softmax(z, -1) + _log(w) for z, w in zip(softened, columns, strict=True)]
    log_p_NC = torch.logsumexp(torch.stack(log_p), 0)
    mean_KN1 = torch.stack([w * z.mean(-1, keepdim=True) for z, w in zip(softened, columns, strict=True)])
    return temperature * (log_p_NC - log_p_NC.mean(-1, keepdim=True) + mean_KN1.sum(0))


def correctness_weights(logits: Sequence[Tensor], weights: Sequence[float], target: Tensor) -> list[Tensor]:
    """Weights of the teachers for each sample, in proportion to the probability that each gives to its label.

    This is Bayes' rule with `weights` as prior: how likely it is that teacher k, of all, has drawn this label. A mixed
    label has the probability Σ_c target_c·p_k(c).

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


def max_likelihood_weights(log_p_KN: Tensor, tolerance: float = 1e-6) -> list[float]:
    """Weights under which the combined teacher gives held-out labels the highest likelihood.

    Maximises Σ_n log Σ_k w_k·p_k(y_n) by expectation maximisation (Dempster, Laird & Rubin 1977, §4.3, with the
    components fixed): w_k ← mean over n of w_k·p_k(y_n) / Σ_j w_j·p_j(y_n). The objective is concave in w, so it ends
    at the global maximum from wherever it starts; equal weights are a start from which no teacher is excluded.

    Args:
        log_p_KN: logarithm of the probability that each teacher gives to the label of each of N held-out samples.
        tolerance: stop when no weight changes by more than this in an iteration.

    Returns:
        K numbers ≥ 0 that add up to 1.
    """
    log_p_KN = log_p_KN.double()
    w_K1 = torch.full((len(log_p_KN), 1), 1 / len(log_p_KN), dtype=torch.float64)
    for _ in range(_MAX_ITERATIONS):
        previous = w_K1
        w_K1 = torch.softmax(log_p_KN + w_K1.log(), 0).mean(1, keepdim=True)
        if (w_K1 - previous).abs().max() <= tolerance:
            break
    return w_K1[:, 0].tolist()


def normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that add up to 1; equal ones if none are given."""
    weights = weights or [1.0] * count
    return [weight / sum(weights) for weight in weights]


def _log(weight: float | Tensor) -> float | Tensor:
    if isinstance(weight, Tensor):
        return weight.log()
    return math.log(weight) if weight > 0 else -math.inf  # math.log(0) raises
