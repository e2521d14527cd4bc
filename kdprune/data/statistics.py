"""What is measured of a data set's pixels before anything is trained: channels, mean and standard deviation."""

from __future__ import annotations

import torch
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
    """Mean and standard deviation of each channel of pixels over 255, from images spread over the split."""
    ids = split.spread(DECODED_IMAGES if split.images is None else STORED_IMAGES)
    channels = split.channels
    if split.images is not None:
        pixels = split.images[torch.from_numpy(ids)].movedim(1, -1).reshape(-1, channels).double()
        mean, std = pixels.mean(0), pixels.std(0)
    else:
        parts = [torch.from_numpy(to_array(split.source[int(i)], channels)).reshape(-1, channels) for i in ids]
        moments = torch.stack([torch.stack([p.double().mean(0), p.double().pow(2).mean(0)]) for p in parts]).mean(0)
        mean, std = moments[0], (moments[1] - moments[0] ** 2).clamp(min=0).sqrt()
    # A constant channel would be divided by zero.
    std = std.clamp(min=1.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
