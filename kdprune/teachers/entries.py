"""How logits are stored: all of them in float16, or the k largest and what rebuilds the rest at any temperature.

Probabilities would freeze the temperature (of 1,000 classes the ten likeliest hold 0.81 at T = 1 and 0.026 at T = 4).

Shapes: N samples, C classes, k kept logits, W 16-bit words of an entry.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Entries(Protocol):
    """A way to store logits. `words` is W; `about` says all that a reader must agree on."""

    words: int
    about: str

    def encode(self, logits_NC: Tensor) -> Tensor: ...

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor: ...


class AllLogits:
    """Every logit in float16 (relative error 5e-4), 2·C bytes an entry."""

    def __init__(self, classes: int) -> None:
        self.words = classes
        self.about = f"float16 logits of {classes} classes"

    def encode(self, logits_NC: Tensor) -> Tensor:
        """float N×C to int16 N×W."""
        return _float16(logits_NC).view(torch.int16)

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor:
        """int16 N×W to float32 N×C."""
        return words_NW.view(torch.float16).float()


class TopK:
    """The k largest logits, their classes, and three numbers about the n = C - k others, 4·k + 6 bytes an entry.

    Let m(T) = T·(logsumexp(z/T) - log n) over the others: each of them set to m(T) has the right mass together at
    temperature T. With their mean μ and variance σ², m(T) = μ + σ²/(2T) + O(1/T²) (cumulant expansion of the
    logsumexp); the stored ones are μ, σ² and m(1), and m(T) = μ + σ²/(2T) + r/T² with r such that m(1) is exact. It is
    therefore exact at T = 1 and to second order in 1/T for T → ∞.

    Args:
        classes: C.
        k: logits kept, 1 to C - 1.
    """

    def __init__(self, classes: int, k: int) -> None:
        if not 1 <= k < classes:
            raise ValueError(f"--teacher.top_k: {k} given for {classes} classes, allowed is [1, {classes - 1}]")
        if classes > 2**16:
            raise ValueError(f"--teacher.top_k: {classes} classes given, allowed are up to 65,536; store all logits")
        self.classes, self.k = classes, k
        self.words = 2 * k + 3
        self.about = f"float16 logits, the {k} largest of {classes} classes"

    def encode(self, logits_NC: Tensor) -> Tensor:
        """float N×C to int16 N×W."""
        z = logits_NC.float()
        top, index = z.topk(self.k, dim=1)
        rest = z.scatter(1, index, -math.inf)
        n = self.classes - self.k
        mean = (z.sum(1) - top.sum(1)) / n
        others = torch.ones_like(z).scatter(1, index, 0.0)
        variance = ((z - mean[:, None]).square() * others).sum(1) / n
        level = torch.logsumexp(rest, 1) - math.log(n)
        numbers = _float16(torch.cat([top, torch.stack([mean, variance, level], 1)], 1)).view(torch.int16)
        # int64 → int16 keeps the low 16 bits: classes above 32,767 become negative words and are read back below
        return torch.cat([index.to(torch.int16), numbers], 1)

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor:
        """int16 N×W to float32 N×C that is right at `temperature`."""
        index = words_NW[:, : self.k].long() & 0xFFFF
        numbers = words_NW[:, self.k :].contiguous().view(torch.float16).float()
        top, (mean, variance, level) = numbers[:, : self.k], numbers[:, self.k :].unbind(1)
        third = level - mean - variance / 2
        tail = mean + variance / (2 * temperature) + third / temperature**2
        return tail[:, None].repeat(1, self.classes).scatter(1, index, top)


def _float16(x: Tensor) -> Tensor:
    """Rounded to float16; a logit beyond its range becomes its largest value rather than infinite."""
    limit = torch.finfo(torch.float16).max
    return x.float().clamp(-limit, limit).to(torch.float16).contiguous()


def make_entries(classes: int, top_k: int | None) -> Entries:
    """Store all logits, or the `top_k` largest."""
    return AllLogits(classes) if top_k is None else TopK(classes, top_k)
