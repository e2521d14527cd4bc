"""A prediction split into its target class and the other classes, without computing 1 − p_y by subtraction.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Split(NamedTuple):
    """Log-probabilities of one prediction.

    Attributes:
        target_N: log p_y.
        rest_N: log (1 − p_y).
        among_rest_NC: log (p_i / (1 − p_y)), the prediction among the other classes; its entry at y is finite but has
            no meaning.
        is_target_NC: bool, true at y.
    """

    target_N: Tensor
    rest_N: Tensor
    among_rest_NC: Tensor
    is_target_NC: Tensor

    def share_NC(self) -> Tensor:
        """Probabilities among the other classes, 0 at the target."""
        return self.among_rest_NC.masked_fill(self.is_target_NC, -torch.inf).exp()


def split(logits_NC: Tensor, label_N: Tensor) -> Split:
    """Split a prediction at its label.

    log (1 − p_y) is a log-sum-exp over the other classes. Computed from p_y, 1 − p_y would round to 0 for a confident
    model, and its logarithm would be infinite.
    """
    log_p_NC = F.log_softmax(logits_NC, dim=1)
    is_target_NC = label_N[:, None] == torch.arange(logits_NC.shape[1], device=logits_NC.device)
    rest_N = log_p_NC.masked_fill(is_target_NC, -torch.inf).logsumexp(1)
    target_N = log_p_NC.gather(1, label_N[:, None]).squeeze(1)
    return Split(target_N, rest_N, log_p_NC - rest_N[:, None], is_target_NC)
