"""The view recipe: which random changes a view of an image is made with.

A recipe is text, parts joined by '+': `crop(4)+flip+cutout(8)`. Imports nothing heavy: the command line checks it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from kdprune.registry import unknown


@dataclass(frozen=True)
class Recipe:
    """What each part means; None or 0 leaves it out.

    Attributes:
        crop: black padding on every side, in pixels, before a random crop back to the image's size
            (He et al. 2016: 4 at 32 px); -1: an eighth of the image's side.
        rrc: random resized crop (Szegedy et al. 2015): smallest area as a fraction; aspect ratio 3/4 to 4/3.
        flip: probability of a horizontal flip.
        cutout: side of a square filled with the mean colour, in pixels (DeVries & Taylor 2017: 16 at 32 px).
        erase: probability of random erasing of 2–33% of the area, filled with the mean colour (Zhong et al. 2017).
        jitter: strength of brightness, contrast and saturation, each by a factor in [1 - s, 1 + s].
        mixup: both parameters of the Beta distribution of λ (Zhang et al. 2018), one λ for each sample.
        cutmix: the same for CutMix (Yun et al. 2019). With both, each sample takes one of the two, half and half.
    """

    crop: int = 0
    rrc: float = 0.0
    flip: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    jitter: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether a view is made of two samples, so that its label is a mixture, too."""
        return self.mixup > 0 or self.cutmix > 0


# part → (value when none is given, lowest, highest, what it is)
_PARTS: dict[str, tuple[float, float, float, str]] = {
    "crop": (-1, -1, 10**4, "padding in pixels"),
    "rrc": (0.08, 0.0, 1.0, "smallest area"),
    "flip": (0.5, 0.0, 1.0, "probability"),
    "cutout": (16, 1, 10**4, "side in pixels"),
    "erase": (0.25, 0.0, 1.0, "probability"),
    "jitter": (0.4, 0.0, 1.0, "strength"),
    "mixup": (0.2, 0.0, 100.0, "parameter of the Beta distribution"),
    "cutmix": (1.0, 0.0, 100.0, "parameter of the Beta distribution"),
}


def parse(text: str, option: str = "--data.augment") -> Recipe:
    """Read a recipe; messages name the option that it was given with.

    Raises:
        ValueError: an unknown part (with the nearest known one), a value outside its range, or `crop` beside `rrc`.
    """
    if text.strip() in ("", "none"):
        return Recipe()
    values: dict[str, float] = {}
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([^()]*?)\s*\))?\s*", part)
        if match is None:
            raise ValueError(f"{option}: cannot read {part!r} in {text!r}; a part is NAME or NAME(VALUE)")
        name, value = match[1], match[2]
        if name not in _PARTS:
            raise ValueError(f"{option}: " + unknown("part", name, [*_PARTS, "none"]))
        if name in values:
            raise ValueError(f"{option}: {name!r} stands twice in {text!r}")
        values[name] = _value(name, value, option)
    if "crop" in values and "rrc" in values:
        raise ValueError(f"{option}: crop and rrc given, allowed is one of the two")
    for name in ("crop", "cutout"):
        if name in values:
            values[name] = int(values[name])
    return Recipe(**values)  # type: ignore[arg-type]


def _value(name: str, text: str | None, option: str) -> float:
    default, low, high, what = _PARTS[name]
    if text is None or text == "":
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = name in ("crop", "cutout")
    if not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{option}: {name}({text}) given; {what}, allowed is {kind} in [{low:g}, {high:g}]")
    return value
