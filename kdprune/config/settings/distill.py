"""Settings of what a student learns from its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdprune.config.conditions import only, setting


@dataclass
class DistillConfig:
    """What the student learns from the teacher: (1 - alpha) · cross-entropy + alpha · loss.

    Args:
        loss: A loss or a weighted sum, such as 'kd' or 'kd + 100*attention_transfer(layers=...)'.
        temperature: Softens both sides; the loss is scaled by its square.
        layers: Pairs [student module path, teacher module path] for feature losses (default: the last stages of both,
            by timm's feature_info).
        alpha: A number in [0, 1], or a policy over the keep fraction: constant(a), linear(a_low, a_high),
            power(a_low, a_high, p), table([[f, a], ...]), auto (measured); each optionally '* warmup(t)',
            '* cosine(end)' or '* late(t)' over the progress of training. Or search,
            search([a, ...]), search([a, ...], [T, ...]): successive halving on kept samples.
    """

    loss: str | list[str | dict[str, Any]] | dict[str, Any] = "kd"
    temperature: float = setting(
        4.0, only(lambda s: s.reads_temperature, "--distill.loss {config.distill.loss} takes none from the run")
    )
    layers: list[list[str]] = setting(
        list, only(lambda s: "layers" in s.loss_reads, "--distill.loss {config.distill.loss} compares no layers")
    )
    alpha: float | str = "linear(1.0, 0.5)"
