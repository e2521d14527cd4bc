"""Networks on the line between two others, and how much worse they are (linear mode connectivity).

Shapes: A points of the line, N samples, S samples of a part.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn


def interpolated(first: dict[str, Tensor], second: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """α·w + (1 − α)·w' of two state dicts; what is no number with a fraction, such as a count of batches, is the first
    one's."""
    return {
        name: torch.lerp(second[name], w, alpha) if w.is_floating_point() else w.clone() for name, w in first.items()
    }


def with_fresh_statistics(model: nn.Module, inputs: Iterable[Tensor], device: torch.device) -> nn.Module:
    """The model in evaluation mode, with BatchNorm's statistics measured anew on some inputs.

    Means and variances of activations are not linear in the weights, so that interpolated ones belong to no network:
    the middle of the line would look worse than it is (Jordan et al. 2022, arXiv 2211.08403).
    """
    with torch.random.fork_rng():  # layers that drop something draw while statistics are measured
        torch.manual_seed(0)
        update_bn(inputs, model, device)
    return model.eval()


def error_barrier(errors_A: np.ndarray, alphas_A: np.ndarray) -> float:
    """max over α of error(α·w + (1 − α)·w') − α·error(w) − (1 − α)·error(w'), 0 or more (Paul et al. 2021, eq. 5).

    Args:
        errors_A: shares of wrong predictions; the last one of w and the first one of w'.
        alphas_A: ascending from 0 to 1.

    Raises:
        ValueError: points that do not go from 0 to 1.
    """
    if len(alphas_A) < 2 or alphas_A[0] != 0 or alphas_A[-1] != 1:
        raise ValueError(f"points {alphas_A.tolist()} given, allowed is from 0 to 1")
    above_A = errors_A - alphas_A * errors_A[-1] - (1 - alphas_A) * errors_A[0]
    return round(float(above_A.max()), 12)  # equal errors differ by rounding


def barriers(wrong_AN: np.ndarray, alphas_A: np.ndarray, parts: Iterable[np.ndarray]) -> list[float]:
    """The error barrier on each part of the samples.

    Args:
        wrong_AN: whether a network of the line is wrong about a sample, bool.
        parts: positions of the S samples of each.
    """
    return [error_barrier(wrong_AN[:, part_S].mean(1), alphas_A) for part_S in parts]
