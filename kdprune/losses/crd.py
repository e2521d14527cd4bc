"""Contrastive distillation: tell the teacher's features of this sample from those of others.

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
from kdprune.registry import register

EMPTY = -1  # id of a place in the queue that holds no sample yet


def info_nce(
    queries_NE: Tensor, keys_ME: Tensor, query_ids_N: Tensor, key_ids_M: Tensor, tau: float, first: int = 0
) -> Tensor:
    """−log of the softmax of cosine/τ at the right key, averaged (van den Oord et al. 2018, eq. 4).

    The right key of query n is key `first` + n. Other keys of the same sample, and empty ones, are left out.
    """
    logits_NM = F.normalize(queries_NE, dim=1) @ F.normalize(keys_ME, dim=1).T / tau
    positions_M = torch.arange(len(keys_ME), device=keys_ME.device)
    right_N = positions_M[first : first + len(queries_NE)]
    left_out_NM = (query_ids_N[:, None] == key_ids_M) | (key_ids_M == EMPTY)
    return F.cross_entropy(logits_NM.masked_fill(left_out_NM & (right_N[:, None] != positions_M), -torch.inf), right_N)


@register("losses", "crd")
class CRD(FeatureLoss):
    """Contrastive representation distillation (Tian et al., ICLR 2020), with a queue of fixed size.

    The original keeps two embeddings of every training sample and a normaliser estimated on the first batch; its
    memory grows with the data set, and its entries are as old as an epoch. Here the negatives of a student's
    embedding are the batch and a queue (He et al. 2020) of the teacher's *features*. The teacher is frozen, so
    they never age: each step embeds them anew. The softmax over them (InfoNCE, the same bound on mutual information)
    needs no normaliser. The converse half, teacher against the student's past embeddings, would age and is left out.

    Args:
        layers: the last pair counts; usually the last stage, or the pooled features before the classifiers.
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
        if batch.sample_ids is None:
            raise ValueError("crd needs sample_ids, to keep a sample from being its own negative")
        student, teacher = next(self.pairs(batch))
        # of all processes, or keys and queue would depend on their number
        keys_MD = torch.cat([gather_batch(as_vector(teacher)), self.queue])
        ids_M = torch.cat([gather_batch(batch.sample_ids), self.queue_ids])
        if self.training:  # the newest first; the oldest fall out
            self.queue.copy_(keys_MD[: self.negatives])
            self.queue_ids.copy_(ids_M[: self.negatives])
        queries_NE, keys_ME = self.student_head(as_vector(student)), self.teacher_head(keys_MD)
        return info_nce(queries_NE, keys_ME, batch.sample_ids, ids_M, self.tau, first_row(len(queries_NE)))
