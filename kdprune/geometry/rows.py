"""Features that need not fit into memory, read block by block, and a seeded order for ties.

Shapes: N samples, B rows of a block, M requested rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdprune.data.counter import bits, key

BLOCK = 16_384  # rows; with a thousand centroids their products take 64 MiB

# `map`, or whatever calls a function like it, in other processes perhaps, and gives the results in their order. What is
# computed is cut into calls by the data alone, so that it has the same bits however many workers there are.
Mapper = Callable[..., Iterable[Any]]


class Rows(Protocol):
    """N×D features: a tensor, an array, a memory map, or anything else that is sliced into arrays of rows.

    Where it has a method `at`, from positions to an array of those rows, single ones are read without the others.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def check(rows: Rows, what: str = "features") -> tuple[int, int]:
    """N and D; a ValueError unless the features are N×D numbers with N and D of at least 1."""
    first = rows[0:1]
    if not len(rows) or first.ndim != 2 or not first.shape[1]:
        shape = tuple(getattr(rows, "shape", (len(rows), *first.shape[1:])))
        raise ValueError(f"{what}: shape {shape} given, allowed is N×D with N and D of at least 1")
    return len(rows), int(first.shape[1])


def check_count(name: str, given: int, most: int, least: int = 1) -> None:
    """A ValueError unless `given` is in [least, most]."""
    if not least <= given <= most:
        raise ValueError(f"{name}: {given} given, allowed is {least} to {most}, as there are {most} to choose from")


def check_length(name: str, given: Any, n: int) -> None:
    """A ValueError unless there is one of these for each row."""
    if len(given) != n:
        raise ValueError(f"{name}: {len(given)} given for {n} rows of features, allowed is one for each row")


def device_of(rows: Rows, device: torch.device | str | None = None) -> torch.device:
    """Where to compute: on `device`, or where the features lie."""
    return torch.device(device or (rows.device if isinstance(rows, Tensor) else "cpu"))


def spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    """The first row of each block, and the first after it."""
    return ((start, min(start + size, n)) for start in range(0, n, size))


def block(rows: Rows, span: tuple[int, int] | Tensor, device: torch.device) -> Tensor:
    """The rows of a span, or at some positions, as float32 (or float64, if they are), B×D.

    Raises:
        ValueError: a row has a NaN, or numbers too large for float32.
    """
    if isinstance(span, Tensor):
        return gather(rows, span, device)
    return _upcast(rows[span[0] : span[1]], device, lambda i: span[0] + i)


def gather(rows: Rows, index_M: Tensor, device: torch.device) -> Tensor:
    """Rows by position, M×D, as `block` gives them."""
    return _upcast(rows_at(rows, index_M), device, lambda i: int(index_M[i]))


def rows_at(rows: Rows, index_M: Tensor) -> Any:
    """Rows by position, as they are stored. What can only be sliced is read through once."""
    if isinstance(rows, Tensor):
        return rows[index_M.to(rows.device)]
    index = index_M.cpu().numpy()
    if isinstance(rows, np.ndarray):
        return rows[index]
    if hasattr(rows, "at"):
        return rows.at(index)
    order = np.argsort(index)
    ascending = index[order]
    parts = [np.asarray(rows[0:0])]
    for start, stop in spans(len(rows), BLOCK):
        first, last = np.searchsorted(ascending, [start, stop])
        if first < last:
            parts.append(np.asarray(rows[start:stop])[ascending[first:last] - start])
    found = np.concatenate(parts)
    found[order] = found.copy()
    return found


def unit(x_BD: Tensor) -> Tensor:
    """Rows of length one; a row of zeros, whose cosine with all others is then 0, stays as it is."""
    return torch.nn.functional.normalize(x_BD, dim=1)


def as_ids(ids_N: Any, n: int, device: torch.device) -> Tensor:
    """Sample ids of the rows, int64 N: their positions where none are given.

    Raises:
        ValueError: not one for each row, or two rows with the same one.
    """
    if ids_N is None:
        return torch.arange(n, device=device)
    check_length("ids", ids_N, n)
    ids = torch.as_tensor(ids_N).to(device, torch.int64)
    ascending = ids.sort().values
    if (twice := ascending[1:][ascending[1:] == ascending[:-1]]).numel():
        raise ValueError(f"ids: {int(twice[0])} given twice, allowed is another one for each row")
    return ids


def rank(ids_N: Tensor, seed: int, purpose: str) -> Tensor:
    """Place of each row in a seeded permutation of the ids, int64 N: of rows that tie, the lowest comes first."""
    order = torch.argsort(bits(key(seed, purpose), ids_N), stable=True)
    return torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))


def lowest_rank(tied_N: Tensor, rank_N: Tensor) -> Tensor:
    """Position of the row of lowest rank among those that tie, a scalar on the device."""
    return torch.where(tied_N, rank_N, torch.iinfo(torch.int64).max).argmin()


def rounding(dtype: torch.dtype) -> float:
    """What squared distances by a matrix product may be wrong by, as a share of the largest squared norm."""
    return 16 * torch.finfo(dtype).eps


def _upcast(part: Any, device: torch.device, position: Any) -> Tensor:
    if not isinstance(part, Tensor):  # a copy, for products of rows that lie otherwise in memory have other bits
        part = torch.tensor(part if part.dtype in (np.float32, np.float64) else part.astype(np.float32))
    part = part.to(device, torch.float64 if part.dtype == torch.float64 else torch.float32)
    finite_B = part.sum(1).isfinite()
    if not finite_B.all():
        row = position(int(finite_B.logical_not().nonzero()[0]))
        raise ValueError(f"features: row {row} has numbers that are not finite, or too large to be squared")
    return part
