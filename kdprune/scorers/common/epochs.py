"""Which of the recorded epochs a scorer looks at. Shapes: N samples, R repeats, E epochs, W windows of J."""

from __future__ import annotations

from torch import Tensor

from kdprune.messages import shown


def at_epoch(recorded_REN: Tensor, epoch: int | None, usual: int = 10) -> Tensor:
    """A statistic after `epoch` epochs, R×N; None: after the usual number, or the last one where fewer are recorded.

    Raises:
        ValueError: an epoch that was not recorded.
    """
    recorded = recorded_REN.shape[1]
    if epoch is None:
        epoch = min(usual, recorded)
    if not is_whole(epoch) or not 1 <= epoch <= recorded:
        raise ValueError(f"epoch: {shown(epoch)} given, and epochs 1 to {recorded} are recorded")
    return recorded_REN[:, epoch - 1]


def at_epoch_or_mean(recorded_REN: Tensor, epoch: int | str | None) -> Tensor:
    """A statistic averaged over repeats, N: after one epoch (None: the last), or over all epochs ("mean").

    Raises:
        ValueError: an epoch that was not recorded, or another text.
    """
    if epoch == "mean":
        return recorded_REN.mean((0, 1))
    if isinstance(epoch, str):
        raise ValueError(f"epoch: {shown(epoch)} given, allowed are 1 to {recorded_REN.shape[1]} and 'mean'")
    return at_epoch(recorded_REN, epoch, usual=recorded_REN.shape[1]).mean(0)


def first_epochs(recorded_REN: Tensor, epochs: int | None, usual: int | None = None) -> Tensor:
    """The first `epochs` epochs; None: the usual number, or all where fewer are recorded or none is usual.

    Raises:
        ValueError: more than were recorded.
    """
    recorded = recorded_REN.shape[1]
    if epochs is None:
        epochs = min(usual or recorded, recorded)
    if not is_whole(epochs) or not 1 <= epochs <= recorded:
        raise ValueError(
            f"epochs: {shown(epochs)} given, and {recorded} epochs are recorded (allowed: 1 to {recorded})"
        )
    return recorded_REN[:, :epochs]


def windows(recorded_REN: Tensor, window: int, least: int = 2) -> list[Tensor]:
    """Each run of `window` successive epochs, W = E − window + 1 views R×J×N.

    Raises:
        ValueError: a window that is longer than the epochs to look at, or too short for the formula.
    """
    epochs = recorded_REN.shape[1]
    if not is_whole(window) or not least <= window <= epochs:
        allowed = f"allowed: {least} to {epochs}" if epochs >= least else f"at least {least} epochs are needed"
        raise ValueError(f"window: {shown(window)} given for {epochs} recorded epochs ({allowed})")
    return [recorded_REN[:, start : start + window] for start in range(epochs - window + 1)]


def spread(recorded_RJN: Tensor) -> Tensor:
    """√Σ_j (x_j − mean)², R×N. Along this dimension it takes a tenth of the time of `Tensor.std`."""
    return (recorded_RJN - recorded_RJN.mean(1, keepdim=True)).square_().sum(1).sqrt_()


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
