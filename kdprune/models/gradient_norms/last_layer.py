"""The gradient norm of a linear classifier's parameters, in closed form.

Shapes: N samples, C classes, H features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def last_layer_gradient_norm(logits_NC: Tensor, features_NH: Tensor, labels_N: Tensor, bias: bool = True) -> Tensor:
    """‖δ‖₂·√(‖h‖² + 1) with δ = softmax(logits) − onehot(label): ‖∂CE/∂(W, b)‖₂ of logits = W·h + b.

    Another scorer than the norm over all parameters, and no approximation of it (Paul et al. 2021, §2; the norm of the
    last layer's gradient as in Katharopoulos & Fleuret 2018).

    Args:
        bias: whether the classifier has one; without it, the 1 goes.
    """
    dtype = torch.promote_types(logits_NC.dtype, torch.float32)
    error_NC = logits_NC.to(dtype).softmax(1)
    error_NC.scatter_add_(1, labels_N[:, None], error_NC.new_full((len(labels_N), 1), -1.0))
    return error_NC.norm(dim=1) * (features_NH.to(dtype).square().sum(1) + int(bias)).sqrt()
