"""What is measured of a data set's pixels before anything is trained: channels, mean and standard deviation."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from kdprune.data.images import ImageError, to_array
from kdprune.data.sources.base import Source
from kdprune.data.split import Split

STORED_IMAGES = 2048  # enough for a mean and a std to three digits
DECODED_IMAGES = 256  # fewer where each has to be decoded, and has more pixels


def natural_channels(source: Source, samples: int = 64) -> int:
    """1 if every one of `samples` images, spread over the source, shows only grey; else 3.

    Grey is judged by the pixels, so digits saved as RGB count as grey. Unreadable images are passed over.

    Raises:
        ImageError: none of the sampled images can be read.
    """
    first_error: ImageError | None = None
    readable = 0
    for sample_id in source.spread(samples):
        try:
            image = source[sample_id]
        except ImageError as error:
            first_error = first_error or error
            continue
        readable += 1
        if not _is_grey(image):
            return 3
    if not readable:
        raise first_error or ImageError(f"{source.name}: no image to look at")
    return 1


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return True
    pixels = to_array(image, 3)
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def mean_and_std(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of pixels over 255, from images spread over the split.

    They are part of the keys of all that is made with the data, so not a bit of them may depend on the number of
    threads or on the machine: pixels are counted, and the counts are added up as whole numbers.
    """
    ids = split.spread(DECODED_IMAGES if split.images is None else STORED_IMAGES)
    if split.images is not None:
        counts_C256 = np.zeros((split.channels, 256), dtype=np.int64)
        for i in ids:
            counts_C256 += _counts(split.images[int(i)].permute(1, 2, 0).cpu().numpy())
        moments = [_of_all(counts_256) for counts_256 in counts_C256]
    else:
        counts_NC256 = [_counts(to_array(split.source[int(i)], split.channels)) for i in ids]
        moments = [_of_images([counts[channel] for counts in counts_NC256]) for channel in range(split.channels)]
    means, variances = zip(*moments, strict=True)
    # A constant channel would be divided by zero.
    return tuple(mean / 255 for mean in means), tuple(max(1.0, math.sqrt(variance)) / 255 for variance in variances)


def _counts(pixels_HWC: np.ndarray) -> np.ndarray:
    """How often each of the 256 values occurs in each channel, int64 C×256."""
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(pixels_HWC, -1, 0)])


def _sums(counts_256: np.ndarray) -> tuple[int, int, int]:
    """How many values there are, their sum and the sum of their squares; exact."""
    counts = counts_256.tolist()
    return sum(counts), sum(k * n for k, n in enumerate(counts)), sum(k * k * n for k, n in enumerate(counts))


def _of_all(counts_256: np.ndarray) -> tuple[float, float]:
    """Mean and variance of images of one size."""
    count, total, squares = _sums(counts_256)
    return total / count, (count * squares - total**2) / (count * max(1, count - 1))


def _of_images(counts_N256: list[np.ndarray]) -> tuple[float, float]:
    """Mean and variance of images of any sizes, each of which counts alike."""
    sums = [_sums(counts_256) for counts_256 in counts_N256]
    mean = math.fsum(total / count for count, total, _ in sums) / len(sums)
    square = math.fsum(squares / count for count, _, squares in sums) / len(sums)
    return mean, max(0.0, square - mean**2)
