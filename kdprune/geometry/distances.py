"""How far each sample is from what stands for its kind: a mean, a median, a centroid.

Shapes: N samples, B rows of a block, D features, C classes, K centroids.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.kmeans import assign
from kdprune.geometry.rows import BLOCK, Rows, block, check, check_length, device_of, gather, spans


def to_class_mean(
    rows: Rows, labels_N: Any, *, block_size: int = BLOCK, device: torch.device | str | None = None
) -> Tensor:
    """Euclidean distance of each row to the mean of its class, N (Sorscher et al. 2022, supervised prototypes).

    Raises:
        ValueError: a row is not finite, labels are not one for each row or below 0.
    """
    where = device_of(rows, device)
    labels_N, (n, d) = _labels(labels_N, rows, where), check(rows)
    sizes_C = torch.bincount(labels_N)
    sums_CD = torch.zeros(len(sizes_C), d, dtype=torch.float64, device=where)
    for span in spans(n, block_size):
        sums_CD.index_put_((labels_N[slice(*span)],), block(rows, span, where).double(), accumulate=True)
    return _to_own(rows, labels_N, sums_CD / sizes_C.clamp(min=1)[:, None], block_size)


def to_class_median(
    rows: Rows, labels_N: Any, *, block_size: int = BLOCK, device: torch.device | str | None = None
) -> Tensor:
    """Euclidean distance of each row to the median, feature by feature, of its class, N (Xia et al. 2023, moderate).

    The paper says mean; its published code takes the median, of an even number the mean of the two in the middle. One
    class at a time is in memory.

    Raises:
        ValueError: a row is not finite, labels are not one for each row or below 0.
    """
    where = device_of(rows, device)
    labels_N, (_, d) = _labels(labels_N, rows, where), check(rows)
    sizes_C = torch.bincount(labels_N)
    medians_CD = torch.zeros(len(sizes_C), d, dtype=torch.float64, device=where)
    members = torch.argsort(labels_N, stable=True).split(sizes_C.tolist())
    for label in sizes_C.nonzero().flatten().tolist():
        ascending = gather(rows, members[label], where).sort(0).values
        half = len(ascending) // 2
        medians_CD[label] = (ascending[half].double() + ascending[(len(ascending) - 1) // 2]) / 2
    return _to_own(rows, labels_N, medians_CD, block_size)


def to_nearest_centroid(
    rows: Rows, centroids_KD: Tensor, *, block_size: int = BLOCK, device: torch.device | str | None = None
) -> Tensor:
    """1 − cos to the nearest centroid of spherical k-means, N (Sorscher et al. 2022, self-supervised prototypes).

    `kmeans(…, spherical=True).distance_N` already is this for the rows that it clustered.
    """
    return assign(rows, centroids_KD, spherical=True, block_size=block_size, device=device).distance_N


def _to_own(rows: Rows, labels_N: Tensor, centers_CD: Tensor, block_size: int) -> Tensor:
    parts = []
    for span in spans(len(rows), block_size):
        x_BD = block(rows, span, labels_N.device)
        parts.append(torch.linalg.vector_norm(x_BD - centers_CD[labels_N[slice(*span)]].to(x_BD.dtype), dim=1))
    return torch.cat(parts)


def _labels(labels_N: Any, rows: Rows, where: torch.device) -> Tensor:
    check_length("labels", labels_N, len(rows))
    labels_N = torch.as_tensor(labels_N).to(where, torch.int64)
    if labels_N.min() < 0:
        raise ValueError(f"labels: {int(labels_N.min())} given, allowed are classes from 0, as each row needs one")
    return labels_N
