"""A 32-bit checksum of each entry of a cache, which also says that the entry is there.

Multilinear hashing (Carter & Wegman 1979; Lemire & Kaser 2014, arXiv 1202.4961): with fixed odd 64-bit numbers a and
the 16-bit words x of the entry,

    h = (Σ_j a_j·x_j + a_W·id + seed) mod 2⁶⁴, of which the upper 32 bits are kept.

Let two entries differ by d ≠ 0 in word j, |d| < 2¹⁶. Their checksums are equal only if a_j·d falls into an interval of
2³³ numbers that the other words place, and it does so for fewer than 2⁻³⁰ of all odd a_j. So damage goes unnoticed once
in a thousand million times: enough against disks and kills, and no protection against an attacker. And it is the
product of a matrix and a vector, so that a batch is checked in microseconds, without a loop over its entries.

Shapes: N entries, W words of an entry.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

_BLOCK = 2**18  # words that are widened to 64 bits at once: 2 MiB stay in the processor's cache


def checksums(words_NW: np.ndarray, ids_N: np.ndarray, seed: int) -> np.ndarray:
    """Checksums of entries, uint32 N, never 0.

    Args:
        words_NW: int16.
        ids_N: sample ids, so that an entry in another one's place is found.
        seed: `seed_of` the file, so that an entry of another file is found.
    """
    multipliers = _multipliers(words_NW.shape[1] + 1)
    total_N = ids_N.astype(np.uint64) * multipliers[-1] + np.uint64(seed)
    rows = max(1, _BLOCK // words_NW.shape[1])
    for start in range(0, len(words_NW), rows):
        block = np.ascontiguousarray(words_NW[start : start + rows]).view(np.uint16)
        total_N[start : start + rows] += block.astype(np.uint64) @ multipliers[:-1]
    return np.maximum((total_N >> np.uint64(32)).astype(np.uint32), 1)  # 0 is what an absent entry has


def seed_of(*parts: str | int) -> int:
    """64 bits that stand for a file."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=8)
def _multipliers(count: int) -> np.ndarray:
    """Odd, so that no change of a single word is multiplied away. The same on every machine and for ever."""
    stream = hashlib.shake_128(b"kdprune cached targets").digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64) | np.uint64(1)
