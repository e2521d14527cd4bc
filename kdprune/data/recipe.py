"""The view recipe: which random changes a view of an image is made with.

A recipe is text, parts joined by '+': `crop(4)+flip+cutout(8)`. Imports nothing heavy: the command line checks it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import NamedTuple

from kdprune import calls
from kdprune.messages import about, shown, unknown


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


class _Part(NamedTuple):
    """What may stand in the brackets of a part: one number."""

    parameter: str
    default: float
    lowest: float
    highest: float
    what: str
    whole: bool = False

    @property
    def signature(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(self.parameter, kind, default=self.default)])


_PARTS = {
    "crop": _Part("pad", -1, -1, 10**4, "padding in pixels", whole=True),
    "rrc": _Part("min_area", 0.08, 0.0, 1.0, "smallest area"),
    "flip": _Part("p", 0.5, 0.0, 1.0, "probability"),
    "cutout": _Part("side", 16, 1, 10**4, "side in pixels", whole=True),
    "erase": _Part("p", 0.25, 0.0, 1.0, "probability"),
    "jitter": _Part("strength", 0.4, 0.0, 1.0, "strength"),
    "mixup": _Part("a", 0.2, 0.0, 100.0, "parameter of the Beta distribution"),
    "cutmix": _Part("a", 1.0, 0.0, 100.0, "parameter of the Beta distribution"),
}


def parse(text: str, option: str = "--data.augment") -> Recipe:
    """Read a recipe; messages name the option that it was given with.

    Raises:
        ValueError: an unknown part (with the nearest known one), a value outside its range, or `crop` beside `rrc`.
    """
    if isinstance(text, str) and text.strip() in ("", "none"):
        return Recipe()
    values: dict[str, float] = {}
    with about(option):
        for product in calls.parse(text):
            call = product[0]
            if len(product) > 1 or not isinstance(call, calls.Call):
                raise ValueError(f"{shown(text)} given; a part is NAME or NAME(VALUE), and '+' joins parts")
            if call.name not in _PARTS:
                raise ValueError(unknown("part", call.name, [*_PARTS, "none"]))
            if call.name in values:
                raise ValueError(f"{call.name!r} stands twice in {shown(text)}")
            values[call.name] = _value(call)
        if "crop" in values and "rrc" in values:
            raise ValueError("crop and rrc given, allowed is one of the two")
    return Recipe(**values)  # type: ignore[arg-type]


def _value(call: calls.Call) -> float:
    part = _PARTS[call.name]
    value = calls.bind(call, part.signature, "part").get(part.parameter, part.default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not part.lowest <= value <= part.highest or (part.whole and value != int(value)):
        kind = "a whole number" if part.whole else "a number"
        raise ValueError(
            f"{shown(str(call))} given; {part.what}, allowed is {kind} in [{part.lowest:g}, {part.highest:g}]"
        )
    return int(value) if part.whole else float(value)
