"""How far each sample is from what stands for its kind: a mean, a median, a centroid.

Shapes: N samples, B rows of a block, D features, C classes, K centroids.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdprune.geometry.kmeans import assign
from kdprune.geometry.rows import BLOCK, Mapper, Rows, block, check, check_length, device_of, gather, spans

CELLS = 2**25  # of a class that are sorted at a time; more of them, and its features are taken some at a time


def to_class_mean(
    rows: Rows, labels_N: Any, *, block_size: int = BLOCK, device: torch.device | str | None = None,
    mapper: Mapper = map,
) -> Tensor:  # fmt: skip
    """Euclidean distance of each row to the mean of its class, N (Sorscher et al. 2022, supervised prototypes).

    Raises:
        ValueError: a row is not finite, labels are not one for each row or below 0.
    """
    where = device_of(rows, device)
    labels_N, (n, d) = _labels(labels_N, rows, where), check(rows)
    sizes_C = torch.bincount(labels_N)
    sums_CD = torch.zeros(len(sizes_C), d, dtype=torch.float64, device=where)
    step = partial(_sums, rows, classes=len(sizes_C), device=where)
    for sums in mapper(step, spans(n, block_size), labels_N.split(block_size)):
        sums_CD += sums
    return _to_own(rows, labels_N, sums_CD / sizes_C.clamp(min=1)[:, None], block_size, mapper)


def to_class_median(
    rows: Rows, labels_N: Any, *, block_size: int = BLOCK, device: torch.device | str | None = None,
    mapper: Mapper = map,
) -> Tensor:  # fmt: skip
    """Euclidean distance of each row to the median, feature by feature, of its class, N (Xia et al. 2023, moderate).

    The paper says mean; its published code takes the median, of an even number the mean of the two in the middle. One
    class at a time is in memory for each worker, and of a large class some of its features.

    Raises:
        ValueError: a row is not finite, labels are not one for each row or below 0.
    """
    where = device_of(rows, device)
    labels_N, (_, d) = _labels(labels_N, rows, where), check(rows)
    sizes_C = torch.bincount(labels_N)
    members = torch.argsort(labels_N, stable=True).split(sizes_C.tolist())
    tasks = [
        (label, span) for label, size in enumerate(sizes_C.tolist()) if size for span in spans(d, max(1, CELLS // size))
    ]
    found = mapper(
        partial(_median, rows, device=where), (members[label] for label, _ in tasks), (span for _, span in tasks)
    )
    medians_CD = torch.zeros(len(sizes_C), d, dtype=torch.float64, device=where)
    for (label, span), median_D in zip(tasks, found, strict=True):
        medians_CD[label, slice(*span)] = median_D
    return _to_own(rows, labels_N, medians_CD, block_size, mapper)


def to_nearest_centroid(
    rows: Rows, centroids_KD: Tensor, *, block_size: int = BLOCK, device: torch.device | str | None = None
) -> Tensor:
    """1 − cos to the nearest centroid of spherical k-means, N (Sorscher et al. 2022, self-supervised prototypes).

    `kmeans(…, spherical=True).distance_N` already is this for the rows that it clustered.
    """
    return assign(rows, centroids_KD, spherical=True, block_size=block_size, device=device).distance_N


def _sums(
    rows: Rows, span: tuple[int, int], labels_B: Tensor, *, classes: int, device: torch.device
) -> Tensor:  # fmt: skip
    """Sums of a block's rows by class, float64 C×D."""
    x_BD = block(rows, span, device).double()
    sums_CD = torch.zeros(classes, x_BD.shape[1], dtype=torch.float64, device=device)
    return sums_CD.index_put_((labels_B.to(device),), x_BD, accumulate=True)


def _median(rows: Rows, index_M: Tensor, span: tuple[int, int], *, device: torch.device) -> Tensor:
    """The median of some features over a class, float64."""
    x_MD = torch.cat([gather(rows, part, device)[:, slice(*span)] for part in index_M.split(BLOCK)])
    ascending = x_MD.sort(0).values
    half = len(ascending) // 2
    return (ascending[half].double() + ascending[(len(ascending) - 1) // 2]) / 2


def _to_own(rows: Rows, labels_N: Tensor, centers_CD: Tensor, block_size: int, mapper: Mapper) -> Tensor:
    step = partial(_from_own, rows, centers_CD=centers_CD, device=labels_N.device)
    return torch.cat([*mapper(step, spans(len(rows), block_size), labels_N.split(block_size))])


def _from_own(
    rows: Rows, span: tuple[int, int], labels_B: Tensor, *, centers_CD: Tensor, device: torch.device
) -> Tensor:  # fmt: skip
    x_BD = block(rows, span, device)
    return torch.linalg.vector_norm(x_BD - centers_CD[labels_B].to(x_BD.dtype), dim=1)


def _labels(labels_N: Any, rows: Rows, where: torch.device) -> Tensor:
    check_length("labels", labels_N, len(rows))
    labels_N = torch.as_tensor(labels_N).to(where, torch.int64)
    if labels_N.min() < 0:
        raise ValueError(f"labels: {int(labels_N.min())} given, allowed are classes from 0, as each row needs one")
    return labels_N
