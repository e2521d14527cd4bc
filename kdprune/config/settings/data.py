"""Settings of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdprune.config.conditions import only, setting


@dataclass
class DataConfig:
    """The images.

    Args:
        dataset: `digits`, `torch/NAME` (torchvision), `hfds/NAME_OR_FOLDER` (Hugging Face), or a folder of images.
        root: Where downloads and the cache of decoded images live (default: ~/.cache/kdprune).
        image_size: Side of the square view in pixels, or [height, width] (default: the stored size of small images, or
            their shorter side; else the student's).
        augment: View recipe, parts joined by '+': crop(pad), rrc(min_area), flip, randaugment(n, m), trivialaugment,
            jitter(strength, hue), grey(p), cutout(side), erase(p), mixup(a), cutmix(a); or 'none'.
        workers: Worker processes for large images and for decoding (default: the number of cores, at most 16).
        memory_gb: Images whose decoded training set fits this many GiB are decoded once into a memory map.
        bad_images: What an unreadable image does: fail the run, or be dropped from it and recorded.
        val_fraction: Part of the training set, in [0, 1), that is set aside for choosing settings: nothing is trained
            on it, neither the student nor a teacher. A function of the seed, with its share of every class. Of data
            without a held-out part, such as a folder without val/, it is that part.
    """

    dataset: str = "digits"
    root: str | None = None
    image_size: int | list[int] | None = None
    augment: str = setting("crop+flip", only(lambda s: s.makes_views, "kdprune {command} makes no views"))
    workers: int | None = None
    memory_gb: float = 4.0
    bad_images: Literal["fail", "drop"] = "fail"
    val_fraction: float = 0.0
