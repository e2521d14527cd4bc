"""Contrastive distillation: pick out the teacher's features of the same sample from those of other samples.

Shapes: N samples, B samples of all processes, M = B + K keys, D features, E dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdprune.losses.common.base import LossInput, positive
from kdprune.losses.common.features import FeatureLoss, as_vector
from kdprune.losses.common.gather import first_row, gather_batch
from kdprune.losses.common.reduction import Reduction
from kdprune.registry import register

EMPTY = -1  # the sample id of a free place in the queue


def info_nce(
    queries_NE: Tensor,
    keys_ME: Tensor,
    query_ids_N: Tensor,
    key_ids_M: Tensor,
    tau: float,
    first: int = 0,
    reduction: Reduction = "mean",
) -> Tensor:
    """−log of the softmax of cosine/τ over keys, at the positive key (van den Oord et al. 2018, eq. 4).

    The positive key of query n is key `first` + n. Its other keys are negatives, without those of the same sample
    (another view of it is no negative) and those of free places.
    """
    logits_NM = F.normalize(queries_NE, dim=1) @ F.normalize(keys_ME, dim=1).T / tau
    positions_M = torch.arange(len(keys_ME), device=keys_ME.device)
    positive_N = positions_M[first : first + len(queries_NE)]
    no_negative_NM = (query_ids_N[:, None] == key_ids_M) | (key_ids_M == EMPTY)
    logits_NM = logits_NM.masked_fill(no_negative_NM & (positive_N[:, None] != positions_M), -torch.inf)
    return F.cross_entropy(logits_NM, positive_N, reduction=reduction)


@register("losses", "crd")
class CRD(FeatureLoss):
    """Contrastive representation distillation (Tian et al., ICLR 2020), with a queue of fixed size.

    The original keeps two embeddings of every training sample, up to an epoch old, and a normaliser estimated on the
    first batch; its memory grows with the data set. Here the negatives of a student's embedding are the batch and a
    queue (He et al. 2020) of the teacher's *features*. The teacher is frozen, so these never become outdated; each step
    embeds them anew with the current head. The softmax over them (InfoNCE, a bound on the same mutual information)
    needs no normaliser. The converse half, the teacher against past embeddings of the student, is left out, because
    those would become outdated.

    Args:
        layers: only the last pair is used; usually the last stages, or the pooled features before the classifiers.
        dim: E, dimensions of the common embedding.
        tau: temperature of the softmax over keys.
        negatives: K, length of the queue; its memory is K × the teacher's width × 4 bytes (33 MB at 4096 × 2048).
    """

    queue: Tensor
    queue_ids: Tensor

    def __init__(
        self, layers: Sequence[tuple[str, str]] = (), dim: int = 128, tau: float = 0.07, negatives: int = 4096
    ) -> None:
        super().__init__(layers[-1:])
        self.dim, self.negatives = int(positive("dim", dim)), int(positive("negatives", negatives))
        self.tau = positive("tau", tau)

    def build(self, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor]) -> None:
        student, teacher = next(self.features(student_features, teacher_features))
        width = as_vector(teacher).shape[1]
        self.student_head = nn.Linear(as_vector(student).shape[1], self.dim, device=student.device)
        self.teacher_head = nn.Linear(width, self.dim, device=student.device)
        self.register_buffer("queue", torch.zeros(self.negatives, width, device=student.device))
        self.register_buffer("queue_ids", torch.full((self.negatives,), EMPTY, device=student.device))

    def compute(self, batch: LossInput) -> Tensor:
        return self._info_nce(batch, "mean")

    def per_sample(self, batch: LossInput) -> Tensor:
        return self._info_nce(batch, "none")

    def _info_nce(self, batch: LossInput, reduction: Reduction) -> Tensor:
        """The loss; in training mode, the batch also enters the queue."""
        if batch.sample_ids is None:
            raise ValueError("crd needs sample_ids, to keep a sample from being its own negative")
        student, teacher = next(self.pairs(batch))
        # from all processes, so that keys and queue do not depend on their number
        keys_MD = torch.cat([gather_batch(as_vector(teacher)), self.queue])
        ids_M = torch.cat([gather_batch(batch.sample_ids), self.queue_ids])
        if self.training:  # newest first, so the cut drops the oldest
            self.queue.copy_(keys_MD[: self.negatives])
            self.queue_ids.copy_(ids_M[: self.negatives])
        queries_NE, keys_ME = self.student_head(as_vector(student)), self.teacher_head(keys_MD)
        first = first_row(len(queries_NE))
        return info_nce(queries_NE, keys_ME, batch.sample_ids, ids_M, self.tau, first, reduction)
