"""Which of the recorded epochs a scorer looks at. Shapes: N samples, R repeats, E epochs."""

from __future__ import annotations

from torch import Tensor


def at_epoch(recorded_REN: Tensor, epoch: int | None, usual: int = 10) -> Tensor:
    """A statistic after `epoch` epochs, R×N; None: after the usual number, or the last one where fewer are recorded.

    Raises:
        ValueError: an epoch that was not recorded.
    """
    recorded = recorded_REN.shape[1]
    if epoch is None:
        epoch = min(usual, recorded)
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 1 <= epoch <= recorded:
        raise ValueError(f"epoch: {epoch!r} given, and epochs 1 to {recorded} are recorded")
    return recorded_REN[:, epoch - 1]
