"""Randomness as a function: every draw is a hash of (seed, purpose, …, sample id, view), never a state.

The hash is SplitMix64's finaliser (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195; constants of Stafford's
variant 13), applied once for each part of the counter. It is int64 arithmetic that wraps around, so it gives the same
bits on every device, and it is vectorised over the samples of a batch.

Shapes: N samples, D draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from kdprune.data.grouping import dealt

BLOCK = 2**15  # samples
STUDENT = "student"  # the role whose purposes have no prefix


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: neighbouring counters get far apart
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def key(*parts: int | str) -> int:
    """A signed 64-bit key for (seed, purpose, …)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def purpose(word: str, role: str = STUDENT) -> str:
    """What a model of a role draws for: "view" for a student, "teacher view" for a teacher.

    Models of one seed and of different roles share no draw: a teacher does not fit the very views that its student is
    shown afterwards.
    """
    return word if role == STUDENT else f"{role} {word}"


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, element by element, int64 to int64; a bijection."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def bits(key: int, ids_N: Tensor, views_N: Tensor | int = 0) -> Tensor:
    """64 random bits for each (sample id, view), int64 N."""
    # A number must wrap around by hand, as tensors do by themselves.
    view = _signed(views_N * _GAMMA % 2**64) if isinstance(views_N, int) else views_N * _GAMMA
    return mix(mix(ids_N * _GAMMA + key) + view)


def uniform(bits_N: Tensor, draws: int) -> Tensor:
    """`draws` uniform numbers in [0, 1) from each sample's bits, float32 N×D, multiples of 2⁻²⁴."""
    draw_D = torch.arange(1, draws + 1, device=bits_N.device) * _GAMMA
    return (_shift(mix(bits_N[:, None] + draw_D), 40)).float() * 2.0**-24


def hashes(key: int, ids_N: Tensor) -> Tensor:
    """`bits` of very many ids, int64 N, on the host: made in blocks, so that what is between stays in a core's cache.

    No two ids have the same, for each step of it is a bijection.
    """
    ids, hashes_N = ids_N.numpy().view(np.uint64), np.empty(len(ids_N), dtype=np.uint64)
    shifted_B = np.empty(min(BLOCK, len(ids_N)), dtype=np.uint64)
    for start in range(0, len(ids), BLOCK):
        hashes_B = hashes_N[start : start + BLOCK]
        np.multiply(ids[start : start + BLOCK], _GAMMA % 2**64, out=hashes_B)
        hashes_B += np.uint64(key % 2**64)
        for _ in range(2):  # for the id, and for view 0
            _mix_in_place(hashes_B, shifted_B[: len(hashes_B)])
    return torch.from_numpy(hashes_N.view(np.int64))


def _mix_in_place(x_B: np.ndarray, shifted_B: np.ndarray) -> None:
    """`mix` of uint64, whose shifts are logical ones; `shifted_B` is room for what is between."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        np.right_shift(x_B, shift, out=shifted_B)
        x_B ^= shifted_B
        if factor != 1:
            x_B *= np.uint64(factor % 2**64)


def permutation(key: int, ids_N: Tensor) -> Tensor:
    """The ids in an order that is a function of (key, id) alone: dropping an id leaves the others' order as it was.

    Ids are ordered by their hashes, as signed numbers. They are first dealt out by the upper bits of these, so that
    each part is sorted in a core's cache, and no more is held beside ids and result than 2 bytes a sample.

    Args:
        ids_N: on the host, none twice.
    """
    parted = max(0, min(16, (len(ids_N) // BLOCK).bit_length()))  # bits that tell the parts
    ordered_N = ids_N.numpy()
    ends: Iterable[int] = [len(ids_N)]
    if parted:
        upper_N = np.empty(len(ids_N), dtype=np.uint16)
        for upper_B, ids_B in zip(torch.from_numpy(upper_N).split(BLOCK), ids_N.split(BLOCK), strict=True):
            upper_B.copy_((hashes(key, ids_B) >> (64 - parted)) + 2 ** (parted - 1))
        ordered_N, ends = dealt(ordered_N, upper_N, 2**parted)
    else:
        ordered_N = ordered_N.copy()
    for start, end in pairwise([0, *ends]):
        ids = ordered_N[start:end]
        ordered_N[start:end] = ids[np.argsort(hashes(key, torch.from_numpy(ids)).numpy())]
    return torch.from_numpy(ordered_N)


def _shift(x: Tensor, n: int) -> Tensor:
    """Logical shift right (int64's own is arithmetic)."""
    return (x >> n) & ((1 << (64 - n)) - 1)
