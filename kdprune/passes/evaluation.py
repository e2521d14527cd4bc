"""Accuracy on held-out data: every sample once, whatever the number of processes.

Shapes: N samples of a batch, C classes, B bins of confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from kdprune.data.reader import Batch
from kdprune.models.inputs import Inputs

BINS = 15  # Guo et al. 2017 (arXiv 1706.04599)
MOST = 512  # images of a batch
BYTES, WEIGHTS = 2**18, 32  # of a batch on a CPU: so many bytes in one channel, or a pixel for so many weights


def batch_for(network: nn.Module, size_HW: tuple[int, int], device: torch.device, dtype: torch.dtype) -> int:
    """Images in a batch of a pass without gradients.

    A GPU wants large ones. A CPU wants a batch whose activations stay in its caches, such as 64 images of 32 px in
    float32, but large enough that reading the weights, once a batch, costs little beside. (Batches change figures by
    rounding only.)

    Args:
        dtype: of the activations.

    Returns:
        a power of two, 8 to 512.
    """
    if device.type != "cpu":
        return MOST
    weights = sum(parameter.numel() for parameter in network.parameters())
    images = max(BYTES // dtype.itemsize, weights // WEIGHTS) // (size_HW[0] * size_HW[1])
    return min(MOST, max(8, 1 << max(0, images.bit_length() - 1)))


class Evaluation:
    """Sums over the batches seen so far, on the device."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.dtype = torch.float32 if device.type == "mps" else torch.float64  # Metal has no double precision
        zeros = partial(torch.zeros, dtype=self.dtype, device=device)
        self.totals = zeros(5)  # samples, correct, correct in the first five, loss, not finite
        self.classes = zeros(2, num_classes)  # samples, correct
        self.bins = zeros(3, BINS)  # samples, correct, confidence

    def add(self, logits_NC: Tensor, labels_N: Tensor) -> None:
        logits = logits_NC.float()
        unfinite = (~logits.isfinite().all(1)).sum()
        loss = F.cross_entropy(logits, labels_N, reduction="sum")
        confidence, guess = logits.softmax(1).max(1)
        right = guess == labels_N
        first_five = (logits.topk(min(5, logits.shape[1])).indices == labels_N[:, None]).any(1)
        self.totals += torch.stack([right.new_ones(len(right)).sum(), right.sum(), first_five.sum(), loss, unfinite])
        ones = torch.ones_like(right)
        self.classes.index_add_(1, labels_N, torch.stack([ones, right]).to(self.dtype))
        # NaN has no bin. It is reported with the result, because looking for it here would stop the host at each batch.
        bin_N = (confidence.nan_to_num(0) * BINS).long().clamp(max=BINS - 1)
        self.bins.index_add_(1, bin_N, torch.stack([ones, right, confidence]).to(self.dtype))

    def result(self, accelerator: Accelerator | None = None) -> dict[str, Any]:
        """top1, top5, loss, the accuracy of each class (None without samples) and the expected calibration error.

        The calibration error is Σ_b (n_b/N)·|accuracy_b - confidence_b| over 15 bins of equal width (Guo et al. 2017,
        eq. 3).

        Raises:
            ValueError: no samples.
            FloatingPointError: logits that are NaN or infinite.
        """
        sums = [self.totals, self.classes, self.bins]
        if accelerator is not None and accelerator.num_processes > 1:
            sums = [accelerator.reduce(x, "sum") for x in sums]
        totals, classes, bins = (x.cpu() for x in sums)
        samples, correct, five, loss, unfinite = totals.tolist()
        if not samples:
            raise ValueError("there is nothing to evaluate: no held-out sample could be read")
        if unfinite:
            raise FloatingPointError(
                f"the model cannot be evaluated: its logits are not finite (NaN or infinite) for {int(unfinite):,} of "
                f"{int(samples):,} samples"
            )
        gap = (bins[1] - bins[2]).abs().sum().item() / samples
        return {
            "top1": correct / samples,
            "top5": five / samples,
            "loss": loss / samples,
            "samples": int(samples),
            "per_class": [right / n if n else None for n, right in classes.T.tolist()],
            "calibration_error": gap,
        }


@torch.no_grad()
def evaluate(
    logits_of: Callable[[Tensor], Tensor], batches: Iterable[Batch], num_classes: int, accelerator: Accelerator
) -> dict[str, Any]:
    """Run a model over held-out batches.

    Args:
        logits_of: from uint8 views N×C×H×W to logits.
        batches: this process's part.
    """
    sums = Evaluation(num_classes, accelerator.device)
    for batch in batches:
        sums.add(logits_of(batch.images), batch.labels)
    return sums.result(accelerator)


def student_logits(model: nn.Module, inputs: Inputs, accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    """A model in eval mode, from uint8 views to logits, in the run's precision."""

    def logits(views_NCHW: Tensor) -> Tensor:
        with accelerator.autocast():
            return model(inputs(views_NCHW))

    return logits


def same_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's buffers: running statistics of BatchNorm are of local batches, and a pass over
    data is that of one model, the one that is saved. DDP does the same at the next step."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            broadcast(buffer)
