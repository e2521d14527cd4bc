"""What is recorded of a prediction: a fixed small set of statistics, from which scorers are computed.

Shapes: N samples, C classes, S statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor

STATISTICS = ("loss", "error_norm", "margin", "entropy", "least_confidence", "kl")
"""In the order in which they are stored. `label_probability` and `correct` follow from them (see `derived`)."""
DERIVED = {"label_probability": "loss", "correct": "margin"}  # statistic → the stored one that it follows from
OF_LABELS = ("loss", "error_norm", "margin", *DERIVED)  # NaN where a sample has no label
EPS = 1e-8  # added to probabilities before the logarithms of `kl`, as in its authors' code: a term is at most 18.4


def statistics(logits_NC: Tensor, labels_N: Tensor, previous_NC: Tensor | None = None) -> Tensor:
    """Statistics of predictions p = softmax(z), float32 S×N in the order of `STATISTICS`.

    - loss: −log p_y, in nats.
    - error_norm: ‖p − onehot(y)‖₂ (Paul et al. 2021, definition 2.5), in [0, √2].
    - margin: z_y − max_{c≠y} z_c (Pleiss et al. 2020, eq. 1).
    - entropy: −Σ p log p, in nats.
    - least_confidence: 1 − max p. Not max p, of which float16 could not tell 0.9999 from 1.
    - kl: Σ|p·log(p/q)|, q the prediction of the epoch before (Zhang et al. 2024, TDDS, as its code computes it: of the
      terms' absolute values); NaN without one.

    Logits that are NaN or +∞ give NaN.

    Args:
        logits_NC: z; C ≥ 2.
        labels_N: -1 where there is no label: loss, error_norm and margin are then NaN.
        previous_NC: log q.
    """
    z_NC = logits_NC.float()
    p_NC = z_NC.softmax(1)
    label_N1 = labels_N.clamp(min=0)[:, None]
    others_NC = z_NC.scatter(1, label_N1, -torch.inf)
    z_label_N = z_NC.gather(1, label_N1)[:, 0]
    # log(1 + Σ_{c≠y} exp(z_c − z_y)): −log_softmax would be 0 or noise where p_y is nearly 1.
    loss_N = torch.nn.functional.softplus(others_NC.logsumexp(1) - z_label_N)
    margin_N = z_label_N - others_NC.amax(1)
    # 1 − p_y and 1 − max p are sums of the others, without cancellation where p_y or max p is nearly 1.
    wrong_NC = p_NC.scatter(1, label_N1, 0)
    error_norm_N = (wrong_NC.sum(1).square() + wrong_NC.square().sum(1)).sqrt()
    below_NC = p_NC.scatter(1, z_NC.argmax(1, keepdim=True), 0)
    least_confidence_N = below_NC.sum(1)
    of_largest_N = (least_confidence_N - 1) * torch.log1p(-least_confidence_N)
    entropy_N = of_largest_N + torch.special.entr(below_NC).sum(1)
    kl_N = torch.full_like(loss_N, torch.nan)
    if previous_NC is not None:
        kl_N = temporal_divergence(z_NC.log_softmax(1), previous_NC)
    stacked_SN = torch.stack([loss_N, error_norm_N, margin_N, entropy_N, least_confidence_N, kl_N])
    stacked_SN[:3].masked_fill_(labels_N < 0, torch.nan)
    return stacked_SN.masked_fill(p_NC.isnan().any(1), torch.nan)


def temporal_divergence(log_p_NC: Tensor, log_q_NC: Tensor) -> Tensor:
    """Σ|p·log(p/q)| of predictions p and those of the epoch before, q, N (see `statistics`)."""
    p_NC, q_NC = log_p_NC.float().exp(), log_q_NC.float().exp()
    return (p_NC * ((p_NC + EPS).log() - (q_NC + EPS).log())).abs().sum(1)


def derived(name: str, stored: Tensor) -> Tensor:
    """`label_probability` = exp(−loss), which is exact where p_y is nearly 1 and where it is nearly 0; `correct`, 1
    where the margin is above 0 (a tie is no right answer)."""
    if name == "label_probability":
        return (-stored).exp()
    assert name == "correct"
    return torch.where(stored.isnan(), stored, (stored > 0).to(stored.dtype))
