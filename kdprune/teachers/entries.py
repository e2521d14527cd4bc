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

    def encode(self, logits_NC: Tensor, like_NW: Tensor | None = None) -> Tensor: ...

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor: ...


class AllLogits:
    """Every logit in float16 (relative error 5e-4), 2·C bytes an entry."""

    def __init__(self, classes: int) -> None:
        self.words = classes
        self.about = f"float16 logits of {classes} classes"

    def encode(self, logits_NC: Tensor, like_NW: Tensor | None = None) -> Tensor:
        """float N×C to int16 N×W."""
        return _float16(logits_NC).view(torch.int16)

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor:
        """int16 N×W to float32 N×C."""
        return words_NW.view(torch.float16).float()


class TopK:
    """The k largest logits, their classes, and three numbers about the n = C - k others, 4·k + 6 bytes an entry.

    Let m(T) = T·(logsumexp(z/T) - log n) over the others: each of them set to m(T) has the right mass together at
    temperature T. Stored are their mean μ, their variance σ² and m(1). In s = 1/T, with d = m(1) - μ,

        m = μ + σ²s/2 + (d - σ²/2)·s²              where a few others stand out (d ≥ σ²/2),
        m = μ + d·σ²s / (2d + (σ² - 2d)·s)         where they are spread wide, and m levels off,

    which is exact at T = 1 and to second order in s for T → ∞ (cumulant expansion of the logsumexp). m is kept between
    m(1) and m(1) + (1 - T)·log n, where it lies whatever the others are (inequalities between means and between norms).

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

    def encode(self, logits_NC: Tensor, like_NW: Tensor | None = None) -> Tensor:
        """float N×C to int16 N×W; with `like_NW`, of the classes that those entries keep instead of the largest."""
        z = logits_NC.float()
        index = z.topk(self.k, dim=1).indices if like_NW is None else self._classes(like_NW)
        is_other = torch.ones_like(z, dtype=torch.bool).scatter(1, index, False)
        n = self.classes - self.k
        mean = z.where(is_other, 0).sum(1) / n
        variance = (z - mean[:, None]).square().where(is_other, 0).sum(1) / n
        level = torch.logsumexp(z.where(is_other, -math.inf), 1) - math.log(n)
        numbers = torch.cat([z.gather(1, index), torch.stack([mean, variance, level], 1)], 1)
        # int64 → int16 keeps the low 16 bits: classes above 32,767 become negative words
        return torch.cat([index.to(torch.int16), _float16(numbers).view(torch.int16)], 1)

    def decode(self, words_NW: Tensor, temperature: float) -> Tensor:
        """int16 N×W to float32 N×C that is right at `temperature`."""
        numbers = words_NW[:, self.k :].contiguous().view(torch.float16).float()
        top, (mean, variance, level) = numbers[:, : self.k], numbers[:, self.k :].unbind(1)
        tail = self._level(mean, variance, level, temperature)
        return tail[:, None].repeat(1, self.classes).scatter(1, self._classes(words_NW), top)

    def _classes(self, words_NW: Tensor) -> Tensor:
        """The classes that entries keep, int64 N×k; a damaged entry cannot name one that there is not."""
        return (words_NW[:, : self.k].long() & 0xFFFF).clamp(max=self.classes - 1)

    def _level(self, mean_N: Tensor, variance_N: Tensor, level_N: Tensor, temperature: float) -> Tensor:
        """m(T) of μ, σ² and m(1)."""
        s = 1 / temperature
        rise = (level_N - mean_N).clamp(min=0)  # rounding may take it below
        excess = rise - variance_N / 2
        polynomial = variance_N * s / 2 + excess * s**2
        levelling = rise * variance_N * s / (2 * rise - 2 * excess * s).clamp(min=1e-9)
        m = mean_N + torch.where(excess >= 0, polynomial, levelling)
        bound = level_N + (1 - temperature) * math.log(self.classes - self.k)
        return m.clamp(torch.minimum(level_N, bound), torch.maximum(level_N, bound))


def _float16(x: Tensor) -> Tensor:
    """Rounded to float16; a logit beyond its range becomes its largest value rather than infinite."""
    limit = torch.finfo(torch.float16).max
    return x.float().clamp(-limit, limit).to(torch.float16).contiguous()


def make_entries(classes: int, top_k: int | None) -> Entries:
    """Store all logits, or the `top_k` largest."""
    return AllLogits(classes) if top_k is None else TopK(classes, top_k)
